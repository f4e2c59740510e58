# SPDX-License-Identifier: Apache-2.0
"""What is done with the messages of one gather: read, post, settle each. Acknowledged is only what is safe."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Final, Protocol

import kombu

from bridge.core.extend import ExtendKey, new_id
from bridge.core.reasons import Reason
from bridge.runtime.backoff import Backoff
from bridge.runtime.health import Health
from bridge.runtime.publisher import NotPublishedError
from listener.acks import Acks
from listener.chronicle import Chronicle
from listener.courier import Endpoint, deliver
from listener.lanes import Parked
from listener.parse import Bad, Other, ResizeEnd, Unreadable, parse
from listener.prefilter import is_other_event
from listener.settings import ListenerSettings
from listener.translate import translate
from listener.verdicts import Hold, Kind, Settle, Split, Verdict

LOG = logging.getLogger(__name__)

ENDPOINT: Final = "listener.endpoint"
LANES: Final = "listener.lanes"


class StoppedError(Exception):
    """Told to stop with messages in hand: they are not acknowledged, so the broker delivers them again."""


class Bus(Protocol):
    """What the work needs of the connection its messages came by."""

    def acks(self, messages: Sequence[kombu.Message]) -> Acks:
        """How these messages are acknowledged."""

    def keep_alive(self, seconds: float, stop: threading.Event) -> None:
        """Wait, with the connection looked after; returns early when told to stop."""

    def breathe(self) -> None:
        """Look after the connection without waiting."""


class SafeKeeping(Protocol):
    """Lanes: each method raises NotPublishedError, or the message is safe."""

    def park(self, parked: Parked) -> None:
        """For a person."""

    def keep_raw(self, body: bytes, reason: Reason) -> None:
        """As it came."""


@dataclass(slots=True)
class InHand:
    """A message whose events are on their way; settled when none is waiting."""

    message: kombu.Message
    end: ResizeEnd
    first_seen: float
    waiting: set[ExtendKey]


@dataclass(frozen=True, slots=True)
class _Gather:
    """What belongs together while one gather is worked on.

    `owners`: who waits for an event. `late`: what a lane did not take at once, and what follows once it has.
    """

    bus: Bus
    acks: Acks
    stop: threading.Event
    owners: dict[ExtendKey, list[InHand]] = field(default_factory=dict)
    late: list[tuple[Callable[[], None], Callable[[], None]]] = field(default_factory=list)


class Worker:
    """Works off gathers, one at a time. For one thread."""

    def __init__(
        self,
        *,
        settings: ListenerSettings,
        endpoint: Endpoint,
        lanes: SafeKeeping,
        health: Health,
        chronicle: Chronicle,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._endpoint = endpoint
        self._lanes = lanes
        self._health = health
        self._chronicle = chronicle
        self._clock = clock

    def work(self, messages: Sequence[kombu.Message], bus: Bus, stop: threading.Event) -> None:
        """Settle and acknowledge every one of them, however long the endpoint or a lane is away.

        Raises StoppedError when told to stop while something is away, and what `bus` raises.
        """
        gather = _Gather(bus, bus.acks(messages), stop)
        for message in messages:
            if self._read(message, gather):
                gather.acks.settle(message)
        gather.acks.flush()
        self._chronicle.in_hand(gather.acks.left)
        events, size = list(gather.owners), self._settings.batch
        for start in range(0, len(events), size):
            self._deliver(events[start : start + size], gather)
        self._catch_up(gather)

    def _read(self, message: kombu.Message, gather: _Gather) -> bool:
        """Read one message; whether it is settled already. Its events are in `gather.owners` otherwise."""
        body = message.body if isinstance(message.body, bytes) else _bytes(message.body)
        if is_other_event(body):
            self._chronicle.other(Reason.OTHER_EVENT)
            return True
        read = parse(body, max_bytes=self._settings.max_message_bytes, max_rows=self._settings.max_rows)
        match read:
            case ResizeEnd():
                return self._take(message, read, gather)
            case Other():
                self._chronicle.other(read.reason)
            case Unreadable():
                self._keep(
                    partial(self._lanes.keep_raw, body, read.reason),
                    partial(self._unreadable, message, read.reason, len(body), gather),
                    gather,
                )
                return False
            case Bad():
                parked = Parked(
                    reason=read.reason,
                    volume_id=read.volume_id,
                    server_id=None,
                    origin=read.origin,
                    first_seen=self._clock(),
                )
                self._park(parked, partial(gather.acks.settle, message), gather)
                return False
        return True

    def _take(self, message: kombu.Message, end: ResizeEnd, gather: _Gather) -> bool:
        translation = translate(end)
        self._chronicle.received(end, translation)
        hand = InHand(message, end, self._clock(), set(translation.events))
        for key in translation.events:
            gather.owners.setdefault(key, []).append(hand)
        return not translation.events

    def _deliver(self, events: Sequence[ExtendKey], gather: _Gather) -> None:
        """Send until each event has its verdict; hold while the endpoint is away."""
        away = Backoff(first=0.5, cap=self._settings.retry_cap, floor=0.1)
        left = list(events)
        for failures in count(1):
            gather.bus.breathe()
            hold = self._send(left, gather)
            left = [key for key in left if key in gather.owners]
            if hold is None:
                self._health.ok(ENDPOINT)
                return
            self._health.bad(ENDPOINT, hold.reason.text)
            if failures == 1:
                for key in left:
                    for hand in gather.owners[key]:
                        self._chronicle.held(key, hold.reason, hand.end.origin)
            gather.bus.keep_alive(away.delay(failures) if hold.after is None else max(0.1, hold.after), gather.stop)
            if gather.stop.is_set():
                raise StoppedError

    def _send(self, events: Sequence[ExtendKey], gather: _Gather) -> Hold | None:
        """One request, or several where it is refused; None when every event has its verdict."""
        sent_as = _request_id(events, gather)
        started = time.monotonic()
        for judgement in deliver(self._endpoint, events, sent_as):
            match judgement:
                case Settle():
                    seconds = time.monotonic() - started
                    for key, verdict in judgement.verdicts.items():
                        self._settle(key, verdict, gather, sent_as, seconds)
                    gather.acks.flush()
                    self._chronicle.in_hand(gather.acks.left)
                case Split():
                    if gather.stop.is_set():
                        raise StoppedError
                case Hold():
                    return judgement
            gather.bus.breathe()
            started = time.monotonic()
        return None

    def _settle(self, key: ExtendKey, verdict: Verdict, gather: _Gather, sent_as: str, seconds: float) -> None:
        """Carry out a verdict for each message that asked for the event."""
        for hand in gather.owners[key]:
            origin = hand.end.origin
            self._chronicle.posted(key, verdict, origin, sent_as, seconds)
            done = partial(_done, hand, key, gather)
            if verdict.kind is Kind.DELIVERED:
                done()
            else:
                parked = Parked(
                    reason=verdict.reason,
                    mark=Reason.NO_SLOW_LANE if verdict.kind is Kind.SLOW else None,
                    volume_id=key.volume_id,
                    server_id=key.server_id,
                    origin=origin,
                    first_seen=hand.first_seen,
                    attempts=1,
                )
                self._park(parked, done, gather)
        del gather.owners[key]

    def _unreadable(self, message: kombu.Message, reason: Reason, size: int, gather: _Gather) -> None:
        self._chronicle.unreadable(reason, size)
        gather.acks.settle(message)

    def _park(self, parked: Parked, done: Callable[[], None], gather: _Gather) -> None:
        def parked_now() -> None:
            self._chronicle.parked(parked)
            done()

        self._keep(partial(self._lanes.park, parked), parked_now, gather)

    def _keep(self, publish: Callable[[], None], done: Callable[[], None], gather: _Gather) -> None:
        """Put something into a lane, now or, while the lane is away, after all that needs none."""
        if gather.late or not self._kept(publish):
            gather.late.append((publish, done))
        else:
            done()

    def _kept(self, publish: Callable[[], None]) -> bool:
        try:
            publish()
        except NotPublishedError as ex:
            self._health.bad(LANES, str(ex))
            return False
        self._health.ok(LANES)
        return True

    def _catch_up(self, gather: _Gather) -> None:
        """Publish what is late until the broker has it."""
        away = Backoff(first=0.2, cap=10, floor=0.1)
        for publish, done in gather.late:
            for failures in count(1):
                if self._kept(publish):
                    break
                gather.bus.keep_alive(away.delay(failures), gather.stop)
                if gather.stop.is_set():
                    raise StoppedError
            done()
            gather.acks.flush()
            self._chronicle.in_hand(gather.acks.left)


def _done(hand: InHand, key: ExtendKey, gather: _Gather) -> None:
    """The event needs nothing more for this message."""
    hand.waiting.discard(key)
    if not hand.waiting:
        gather.acks.settle(hand.message)


def _request_id(events: Sequence[ExtendKey], gather: _Gather) -> str:
    """The user's own request id when all events share one, else a new one that the audit log maps."""
    ids = {hand.end.origin.carried for key in events for hand in gather.owners[key]}
    only = ids.pop() if len(ids) == 1 else None
    return only or f"req-{new_id()}"


def _bytes(body: memoryview | str) -> bytes:
    """Memory's transport hands out text."""
    return body.encode("utf-8", "surrogateescape") if isinstance(body, str) else bytes(body)
