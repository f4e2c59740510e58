# SPDX-License-Identifier: Apache-2.0
"""The listener's one thread: gather what is there, post it, settle each message, again.

No linger: a batch is what came while the last one was posted. A message is acknowledged when each of its events has
a verdict, or lies safely in one of our lanes. It is never requeued: brokers count that and drop what was counted
often.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

import kombu

from bridge.core.extend import ExtendKey, new_id
from bridge.core.reasons import Reason
from bridge.runtime.backoff import Backoff
from bridge.runtime.health import Health
from bridge.runtime.publisher import NotPublishedError
from bridge.runtime.transport import BROKER_ERRORS
from listener.chronicle import Chronicle
from listener.courier import Endpoint, deliver
from listener.intake import TopicIntake
from listener.lanes import Lanes
from listener.parse import Bad, Other, ResizeEnd, Unreadable, parse
from listener.prefilter import is_other_event
from listener.settings import ListenerSettings
from listener.translate import translate
from listener.verdicts import Hold, Kind, Verdict

LOG = logging.getLogger(__name__)

BROKER: Final = "listener.broker"
ENDPOINT: Final = "listener.endpoint"
LANES: Final = "listener.lanes"


class _StoppedError(Exception):
    """Told to stop with messages in hand: they are not acknowledged, so the broker delivers them again."""


@dataclass(slots=True)
class InHand:
    """A message whose events are on their way."""

    message: kombu.Message
    end: ResizeEnd
    waiting: set[ExtendKey]


class Listener:
    """One session after another with Cinder's broker, for ever."""

    def __init__(
        self,
        *,
        settings: ListenerSettings,
        connect: Callable[[], kombu.Connection],
        endpoint: Endpoint,
        lanes: Lanes,
        health: Health,
        chronicle: Chronicle,
    ) -> None:
        self._settings = settings
        self._connect = connect
        self._endpoint = endpoint
        self._lanes = lanes
        self._health = health
        self._chronicle = chronicle

    def run(self, stop: threading.Event) -> None:
        """Until told to stop; a lost broker is connected to again, with back-off."""
        away = Backoff(first=0.5, cap=10, floor=0.2)
        for failures in count(1):
            try:
                with self._connect() as connection:
                    self._session(connection, stop)
            except _StoppedError:
                LOG.info("stopped with messages in hand; the broker delivers them again")
            except BROKER_ERRORS as ex:
                self._health.bad(BROKER, f"the notification bus cannot be reached: {type(ex).__name__}")
            if stop.wait(away.delay(min(failures, 6))):
                break
        self._lanes.close()

    def _session(self, connection: kombu.Connection, stop: threading.Event) -> None:
        intake = TopicIntake(
            connection, self._settings.queues, prefetch=2 * self._settings.batch, health=self._health
        )
        connection.connect()
        self._health.ok(BROKER)
        if not intake.wait_for_queues(stop):
            return
        with intake.consuming():
            while not stop.is_set():
                messages = intake.gather()
                if messages:
                    self._chronicle.in_hand(len(messages))
                    self._chronicle.took(len(messages))
                    self._work(messages, intake, stop)
                    self._chronicle.in_hand(0)

    def _work(self, messages: Sequence[kombu.Message], intake: TopicIntake, stop: threading.Event) -> None:
        in_hand = [m for m in (self._read(message, intake, stop) for message in messages) if m is not None]
        events = list(dict.fromkeys(key for m in in_hand for key in sorted(m.waiting)))
        size = self._settings.batch
        for start in range(0, len(events), size):
            self._deliver(events[start : start + size], in_hand, intake, stop)

    def _read(self, message: kombu.Message, intake: TopicIntake, stop: threading.Event) -> InHand | None:
        """Read one message; None when it is settled already."""
        body = _bytes(message.body)
        if is_other_event(body):
            self._chronicle.other(Reason.OTHER_EVENT)
            message.ack()
            return None
        settings = self._settings
        read = parse(body, max_bytes=settings.max_message_bytes, max_rows=settings.max_rows)
        match read:
            case ResizeEnd():
                translation = translate(read)
                self._chronicle.received(read, translation)
                if translation.events:
                    return InHand(message, read, set(translation.events))
            case Other():
                self._chronicle.other(read.reason)
            case Unreadable(reason=reason):
                self._safely(lambda: self._lanes.keep_raw(body, reason), intake, stop)
                self._chronicle.unreadable(reason, len(body))
            case Bad(reason=reason, volume_id=volume_id, origin=origin):
                self._safely(lambda: self._lanes.park_message(volume_id, reason, origin), intake, stop)
                self._chronicle.parked(volume_id, None, reason, origin)
        message.ack()
        return None

    def _deliver(
        self, events: Sequence[ExtendKey], in_hand: Sequence[InHand], intake: TopicIntake, stop: threading.Event
    ) -> None:
        """Send until each event has its verdict; hold while the endpoint is away."""
        away = Backoff(first=0.5, cap=self._settings.retry_cap, floor=0.1)
        left = list(events)
        for failures in count(1):
            sent_as = _request_id(left, in_hand)
            started = time.monotonic()
            delivery = deliver(self._endpoint, left, sent_as)
            for key, verdict in delivery.verdicts.items():
                self._settle(key, verdict, in_hand, sent_as, time.monotonic() - started, intake, stop)
            left = [key for key in left if key not in delivery.verdicts]
            if delivery.hold is None:
                self._health.ok(ENDPOINT)
                return
            self._hold(delivery.hold, left, in_hand, first=failures == 1)
            after = delivery.hold.after
            intake.keep_alive(away.delay(failures) if after is None else max(0.1, after), stop)
            if stop.is_set():
                raise _StoppedError

    def _hold(self, hold: Hold, left: Sequence[ExtendKey], in_hand: Sequence[InHand], *, first: bool) -> None:
        self._health.bad(ENDPOINT, hold.reason.text)
        if first:
            for key in left:
                for m in _of(key, in_hand):
                    self._chronicle.held(key, hold.reason, m.end.origin)

    def _settle(
        self,
        key: ExtendKey,
        verdict: Verdict,
        in_hand: Sequence[InHand],
        sent_as: str,
        seconds: float,
        intake: TopicIntake,
        stop: threading.Event,
    ) -> None:
        """Carry out a verdict for each message that asked for the event; acknowledge what is done."""
        for m in _of(key, in_hand):
            origin = m.end.origin
            self._chronicle.posted(key, verdict, origin, sent_as, seconds)
            if verdict.kind is not Kind.DELIVERED:
                # without a slow lane both wait for a person; the reason tells which would come right by itself
                self._safely(lambda o=origin: self._lanes.park_event(key, verdict.reason, o), intake, stop)  # type: ignore[misc]
                self._chronicle.parked(key.volume_id, key.server_id, verdict.reason, origin)
            m.waiting.discard(key)
            if not m.waiting:
                m.message.ack()

    def _safely(self, publish: Callable[[], None], intake: TopicIntake, stop: threading.Event) -> None:
        """Publish to a lane of ours until the broker has it."""
        away = Backoff(first=0.2, cap=10, floor=0.1)
        for failures in count(1):
            try:
                publish()
            except NotPublishedError as ex:
                self._health.bad(LANES, str(ex))
                intake.keep_alive(away.delay(failures), stop)
                if stop.is_set():
                    raise _StoppedError from ex
                continue
            self._health.ok(LANES)
            return


def _of(key: ExtendKey, in_hand: Sequence[InHand]) -> list[InHand]:
    return [m for m in in_hand if key in m.waiting]


def _request_id(events: Sequence[ExtendKey], in_hand: Sequence[InHand]) -> str:
    """The user's own request id when all events share one, else a new one that the audit log maps."""
    wanted = set(events)
    ids = {m.end.origin.request_id for m in in_hand if m.waiting & wanted}
    only = ids.pop() if len(ids) == 1 else None
    return only or f"req-{new_id()}"


def _bytes(body: bytes | memoryview | str) -> bytes:
    return body.encode("utf-8", "surrogateescape") if isinstance(body, str) else bytes(body)
