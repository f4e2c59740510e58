# SPDX-License-Identifier: Apache-2.0
"""The bugs --break plants, in the process of the part they belong to. Each is one a hurried change could bring."""

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Final

from tests.chaos.options import Break

_HOUR: Final = 3600.0
_STALE: Final = 5.0  # seconds a size read from Cinder is believed


def plant(bug: Break, part: str) -> None:
    """Plant it, where this part can have it."""
    for name, put in _BUGS[bug].items():
        if name == part:
            put()


def check_fits(owner: object, name: str, new: Callable[..., Any]) -> None:
    """Raises TypeError where it cannot be called as what is there is: a part that fails at every call would be
    found, but not for the bug in it."""
    takes, given = inspect.signature(getattr(owner, name)).parameters, inspect.signature(new).parameters
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in given.values())
    if missing := [each for each in takes if each not in given and not anything]:
        raise TypeError(f"{name} takes no {', '.join(missing)}")


def _put(owner: object, name: str, new: Callable[..., Any]) -> None:
    check_fits(owner, name, new)
    setattr(owner, name, new)


def _ack_early() -> None:
    """Acknowledges what it has read, before a word of it is posted."""
    import kombu  # noqa: PLC0415 - only the part that is broken loads its own modules

    from listener import intake  # noqa: PLC0415
    from listener.batch import Acks  # noqa: PLC0415

    class EarlyAcks(Acks):
        def __init__(self, messages: Sequence[kombu.Message], *, multiple: bool) -> None:
            super().__init__(messages, multiple=multiple)
            for message in messages:
                message.ack()

        def flush(self) -> None:
            self._open = [message for message in self._open if message.delivery_tag not in self._settled]

    _put(intake, "Acks", EarlyAcks)


def _no_generation() -> None:
    """Takes an event for an extend that is on its way for the same extend: the first report closes both."""
    from bridge.journal import accept  # noqa: PLC0415

    def raise_all(connection: object, rows: object) -> None:
        del connection, rows

    def by_several(*_of_one_request: object, **_more: object) -> dict[object, str]:
        return {}

    _put(accept, "_raise_all", raise_all)
    _put(accept, "open_alone", by_several)
    _put(accept, "_open_one", _open_as_many)


def _open_as_many(connection: Any, arrival: Any, now: float) -> dict[Any, str]:
    from bridge.journal import accept  # noqa: PLC0415

    ids = accept._open_many(connection, {arrival.key: arrival}, now)
    accept.ACCEPTED.run_many(connection, [accept.line_of(ids[arrival.key], arrival, now)])
    return ids


def _stale_sizes() -> None:
    """Keeps Cinder's answers for a while, each engine its own."""
    from bridge.engine.cinder import CinderAnswer, CinderReader  # noqa: PLC0415

    ask, kept = CinderReader.volume, dict[str, tuple[float, CinderAnswer]]()

    def volume(self: CinderReader, volume_id: str, **more: Any) -> CinderAnswer:
        at, answer = kept.get(volume_id, (0.0, None))
        if answer is None or time.monotonic() - at > _STALE:
            answer = ask(self, volume_id, **more)
            kept[volume_id] = (time.monotonic(), answer)
        return answer

    _put(CinderReader, "volume", volume)


def _no_guard() -> None:
    """Resizes to what the order says, without a look at what the disk has."""
    from hostagent import extend  # noqa: PLC0415
    from hostagent.domain import Disk  # noqa: PLC0415
    from hostagent.drivers.base import Hypervisor  # noqa: PLC0415
    from hostagent.resize import Resized  # noqa: PLC0415

    def grow(
        hypervisor: Hypervisor, server_id: str, disk: Disk, size: int, **_of_no_played_disk: object
    ) -> Resized:
        hypervisor.on_guest(server_id, lambda guest, _: guest.resize(disk, size))
        return Resized(before=0, asked=True)

    def capacity(self: Any, name: str, disk: Disk) -> int:
        size: int = look(self, name, disk)
        return 0 if name == "before" else size

    look = extend._ExtendAttempt._capacity
    _put(extend, "grow", grow)
    _put(extend._ExtendAttempt, "_capacity", capacity)


def _no_mandatory() -> None:
    """Publishes and hopes."""
    import kombu  # noqa: PLC0415

    from bridge.runtime.publisher import PublishOptions, SafePublisher  # noqa: PLC0415

    def publish(self: SafePublisher, queue: str, body: bytes, options: PublishOptions, timeout: float) -> None:
        del timeout
        kombu.Producer(self._ready_channel(), auto_declare=False).publish(
            body, exchange=options.get("exchange", ""), routing_key=options.get("routing_key") or queue,
            content_type=options.get("content_type", "application/json"), content_encoding="binary",
            delivery_mode=2, headers=options.get("headers") or {},
        )  # fmt: skip

    _put(SafePublisher, "_publish", publish)


def _cast_only() -> None:
    """Closes an extend as soon as the broker has taken its order."""
    from bridge.core.outcome import Outcome  # noqa: PLC0415
    from bridge.engine.dispatch import Dispatcher  # noqa: PLC0415
    from bridge.journal.claims import Ended  # noqa: PLC0415

    cast_group = Dispatcher._cast_group

    def and_close(self: Dispatcher, host: str, group: Sequence[Any]) -> None:
        cast_group(self, host, group)
        self._work.end([Ended(extend=a.extend, outcome=Outcome.RESIZED, reason="cast") for a, _ in group])

    _put(Dispatcher, "_cast_group", and_close)


def _blind() -> None:
    """Reconciles, and finds nothing."""
    from bridge.engine import reconcile  # noqa: PLC0415

    def survey(volume: object, facts: object) -> list[object]:
        del volume, facts
        return []

    _put(reconcile, "survey", survey)


def _no_read_timeout() -> None:
    """Gives the broker an hour for each answer, and asks it for no heartbeats."""
    from bridge.runtime.amqp_socket import BoundedConnection  # noqa: PLC0415
    from bridge.runtime.publisher import BusPublisher  # noqa: PLC0415

    once = BusPublisher._once

    def patient(self: BusPublisher, queue: str, send: Any, timeout: Any) -> None:
        del timeout
        once(self, queue, send, _HOUR)

    _put(BusPublisher, "_once", patient)
    make = BoundedConnection.__init__

    def without_heartbeat(self: BoundedConnection, *arguments: Any, **named: Any) -> None:
        make(self, *arguments, **{**named, "heartbeat": 0})

    drain = BoundedConnection.drain_events
    _put(BoundedConnection, "__init__", without_heartbeat)
    _put(BoundedConnection, "answering", lambda self, timeout: nullcontext())
    _put(
        BoundedConnection,
        "drain_events",
        lambda self, timeout=None: drain(self, _HOUR if timeout is None else timeout),
    )


def _no_http_deadline() -> None:
    """Gives every HTTP service an hour: Cinder, Nova, Keystone, the endpoint."""
    from bridge.runtime import rest  # noqa: PLC0415

    def left(at: float | None) -> float:
        del at
        return _HOUR

    _put(rest, "_left", left)


def _no_call_limit() -> None:
    """Gives libvirt an hour for each call."""
    from hostagent.drivers.libvirt.session import Session  # noqa: PLC0415

    make = Session.__init__

    def patient(self: Session, *arguments: Any, **named: Any) -> None:
        make(self, *arguments, **{**named, "limit": _HOUR})

    _put(Session, "__init__", patient)


def _polite_close() -> None:
    """Says goodbye to a broker that may not listen before it drops the socket."""
    from bridge.runtime.amqp_socket import BoundedConnection  # noqa: PLC0415

    drop = BoundedConnection.collect

    def collect(self: BoundedConnection) -> None:
        transport = self._transport
        if transport is not None and transport.connected and not self.is_closing:
            transport.within = lambda _seconds: nullcontext()
            transport.end = time.monotonic() + _HOUR
            super(BoundedConnection, self).close()
        drop(self)

    _put(BoundedConnection, "collect", collect)


def _last_word() -> None:
    """Reads ready until a part says otherwise, and parts do not come to say so."""
    from bridge.runtime.health import Check, Health  # noqa: PLC0415

    def checks(self: Health) -> Mapping[str, Check]:
        return {name: word.check for name, word in self._words.items()}

    _put(Health, "checks", checks)


def _all(*bugs: Callable[[], None]) -> Callable[[], None]:
    """Return the planting of several bugs."""

    def put() -> None:
        for bug in bugs:
            bug()

    return put


_NO_TIMEOUTS: Final[Mapping[str, tuple[Callable[[], None], ...]]] = {
    "listener": (_no_read_timeout, _no_http_deadline),
    "api": (_no_http_deadline,),
    "engine": (_no_read_timeout, _no_http_deadline),
    "hostagent": (_no_read_timeout, _no_call_limit),
}
_ON_THE_BUS: Final = ("listener", "engine", "hostagent")
_BUGS: Final[Mapping[Break, Mapping[str, Callable[[], None]]]] = {
    Break.ACK_EARLY: {"listener": _ack_early},
    Break.NO_GENERATION: {"api": _no_generation},
    Break.NO_GUARD: {"engine": _stale_sizes, "hostagent": _no_guard},
    Break.NO_MANDATORY: {"listener": _no_mandatory, "hostagent": _no_mandatory},
    Break.CAST_ONLY: {"engine": _cast_only},
    Break.BLIND: {"engine": _blind},
    Break.NO_READ_TIMEOUT: {part: _all(*bugs) for part, bugs in _NO_TIMEOUTS.items()},
    Break.POLITE_CLOSE: dict.fromkeys(_ON_THE_BUS, _polite_close),
    Break.LAST_WORD: {part: _all(_last_word, *bugs) for part, bugs in _NO_TIMEOUTS.items()},
}
