# SPDX-License-Identifier: Apache-2.0
"""Process one batch: decode, post, settle. A message is acked only after all its events are settled."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

import kombu

from bridge.core.errors import ShuttingDownError
from bridge.core.extend import ExtendKey, new_id
from bridge.core.reasons import Reason
from bridge.runtime.health import LIMIT, Health, moving
from bridge.runtime.raw_messages import COMPRESSION, body_bytes
from bridge.runtime.retry import Backoff
from listener.batch import Batch, Bus, PendingMessage
from listener.decode import Events, Nothing, Raw, Reader
from listener.endpoint import EndpointClient
from listener.lane_writer import LaneWriter
from listener.lanes import Parked
from listener.notification import Origin
from listener.retry_policy import DeliveryLimits, SlowDelay
from listener.telemetry import Telemetry
from listener.verdicts import Hold, Kind, Settle, Split, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Away:
    """The endpoint was unreachable for so long that the events in hand went into the slow lane.

    `key` is one of these events, for a probe of the endpoint. `after`: seconds to wait, where the endpoint said so.
    """

    reason: Reason
    key: ExtendKey
    origin: Origin
    after: float | None


class Worker:
    """A worker that processes batches, one at a time. For one thread. `check`: the endpoint's health check."""

    def __init__(
        self,
        *,
        limits: DeliveryLimits,
        reader: Reader,
        client: EndpointClient,
        lane_writer: LaneWriter,
        health: Health,
        check: str,
        telemetry: Telemetry,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._limits = limits
        self._reader = reader
        self._client = client
        self._lane_writer = lane_writer
        self._health = health
        self._check = check
        self._telemetry = telemetry
        self._clock = clock
        self._away_since: float | None = None

    def work(self, messages: Sequence[kombu.Message], bus: Bus, stop: threading.Event) -> Away | None:
        """Settle and acknowledge every message.

        Returns Away when events went into the slow lane because the endpoint was unreachable for too long. Raises
        ShuttingDownError when told to stop while a lane or the endpoint is unreachable, and the errors of `bus`.
        """
        batch = self._open(messages, bus, stop)
        away: Away | None = None
        events, size = list(batch.waiters), self._limits.batch
        for start in range(0, len(events), size):
            portion = events[start : start + size]
            if away is None:
                away = self._deliver(portion, batch)
            else:
                self._put_aside(portion, away.reason, batch)
        self._lane_writer.catch_up(batch)
        return away

    def put_aside(self, messages: Sequence[kombu.Message], away: Away, bus: Bus, stop: threading.Event) -> None:
        """Settle and acknowledge messages by the slow lane, without the endpoint. Raises as `work` does."""
        batch = self._open(messages, bus, stop)
        self._put_aside(list(batch.waiters), away.reason, batch)
        self._lane_writer.catch_up(batch)

    def still_away(self, away: Away) -> Away | None:
        """Probe the endpoint; None when it answers.

        The verdict on the probe's event is recorded only, because the event comes again from the slow lane.
        """
        if away.reason is Reason.ALL_HIDDEN:
            self._away_since = None
            return None  # one event proves nothing; the next batch decides
        sent_as = f"req-{new_id()}"
        started = time.monotonic()
        judgement = next(self._client.deliver([away.key], sent_as, _traces({away.key: away.origin})))
        if isinstance(judgement, Hold):
            self._health.bad(self._check, judgement.reason.text)
            return Away(reason=judgement.reason, key=away.key, origin=away.origin, after=judgement.after)
        if isinstance(judgement, Settle):
            verdict = judgement.verdicts[away.key]
            self._telemetry.asked_again(away.key, verdict, away.origin, sent_as, time.monotonic() - started)
        self._answered()
        return None

    def _open(self, messages: Sequence[kombu.Message], bus: Bus, stop: threading.Event) -> Batch:
        """Decode messages; settle those that need no endpoint."""
        batch = Batch(bus, bus.acks(messages), stop)
        for message in messages:
            self._read(message, batch)
        self._acknowledge(batch)
        return batch

    def _read(self, message: kombu.Message, batch: Batch) -> None:
        body = body_bytes(message)
        found = self._reader.read(body, message.headers.get(COMPRESSION))
        match found:
            case Nothing():
                batch.acks.settle(message)
            case Events():
                batch.take(message, found)
            case Raw():
                self._lane_writer.raw(message, body, found.reason, batch)
            case Parked():
                self._lane_writer.park(found, partial(batch.acks.settle, message), batch)

    def _deliver(self, events: Sequence[ExtendKey], batch: Batch) -> Away | None:
        """Send until each event has a verdict; hold events of an unreachable endpoint, up to the limit."""
        backoff, left = Backoff(first=0.5, cap=self._limits.retry_cap, floor=0.1), list(events)
        for failures in count(1):
            batch.bus.service_connection()
            hold = self._send(left, batch)
            if hold is None:
                break
            left = [key for key in left if key in batch.waiters]
            self._health.bad(self._check, hold.reason.text)
            if failures == 1:
                for key in left:
                    for pending in batch.waiters[key]:
                        self._telemetry.held(key, hold.reason, pending.asked.origin)
            wait = backoff.delay(failures) if hold.after is None else max(0.1, hold.after)
            if self._lane_writer.slow:
                longest = self._hold_left()
                if longest > 0:
                    wait = min(wait, longest)
                elif (away := self._moved(left, hold, batch)) is not None:
                    return away
            batch.wait(wait)
        self._answered()
        return None

    def _hold_left(self) -> float:
        """Return the seconds until the endpoint was unreachable for the time limit.

        Counted over batches, because a broker that takes messages back (consumer_timeout) counts redeliveries.
        """
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
        return self._away_since + self._limits.hold - now

    def _answered(self) -> None:
        self._away_since = None
        self._health.ok(self._check, good_for=LIMIT)

    def _moved(self, events: Sequence[ExtendKey], hold: Hold, batch: Batch) -> Away | None:
        """Move events into the slow lane at once.

        Returns None while the lane is unreachable, too. The rest then goes to the lane or the endpoint, whichever
        is reachable first.
        """
        first = events[0]
        origin = batch.waiters[first][0].asked.origin
        for key in events:
            pendings = batch.waiters[key]
            while pendings:
                deferred = pendings[0].deferred(key, pendings[0].asked.attempts, hold.reason)
                if not self._lane_writer.deferred_now(deferred, SlowDelay.SHORT):
                    return None
                batch.done(pendings.pop(0), key)
            del batch.waiters[key]
            self._acknowledge(batch)
        return Away(reason=hold.reason, key=first, origin=origin, after=hold.after)

    def _put_aside(self, events: Sequence[ExtendKey], reason: Reason, batch: Batch) -> None:
        for key in events:
            for pending in batch.waiters.pop(key):
                deferred = pending.deferred(key, pending.asked.attempts, reason)
                self._lane_writer.defer(deferred, SlowDelay.SHORT, partial(batch.done, pending, key), batch)
            self._acknowledge(batch)

    def _send(self, events: Sequence[ExtendKey], batch: Batch) -> Hold | None:
        """Send one request, or several where the first is refused; None when every event has a verdict."""
        sent_as = _request_id(events, batch)
        started = time.monotonic()
        traces = _traces({key: batch.waiters[key][0].asked.origin for key in events})
        for judgement in self._client.deliver(events, sent_as, traces):
            match judgement:
                case Settle():
                    seconds = time.monotonic() - started
                    for key, verdict in judgement.verdicts.items():
                        for pending in batch.waiters.pop(key):
                            self._telemetry.posted(key, verdict, pending.asked.origin, sent_as, seconds)
                            self._carry_out(verdict, key, pending, batch)
                    self._acknowledge(batch)
                case Split():
                    if batch.stop.is_set():
                        raise ShuttingDownError
                case Hold():
                    return judgement
            moving()
            batch.bus.service_connection()
            started = time.monotonic()
        return None

    def _carry_out(self, verdict: Verdict, key: ExtendKey, pending: PendingMessage, batch: Batch) -> None:
        """Apply a verdict to one message that waits for the event."""
        done = partial(batch.done, pending, key)
        if verdict.kind is Kind.DELIVERED:
            done()
            return
        attempts = pending.asked.attempts + 1
        parked = Parked(
            reason=verdict.reason,
            volume_id=key.volume_id,
            server_id=key.server_id,
            origin=pending.asked.origin,
            first_seen=pending.asked.first_seen,
            attempts=attempts,
        )
        step = self._limits.retry.after(attempts, self._clock() - pending.asked.first_seen)
        if verdict.kind is Kind.PARK or step is None:
            self._lane_writer.park(parked, done, batch)
        elif self._lane_writer.slow:
            self._lane_writer.defer(pending.deferred(key, attempts, verdict.reason), step, done, batch)
        else:
            self._lane_writer.park(replace(parked, mark=Reason.NO_SLOW_LANE), done, batch)

    def _acknowledge(self, batch: Batch) -> None:
        batch.acks.flush()
        self._telemetry.in_hand(batch.acks.left)


def _request_id(events: Sequence[ExtendKey], batch: Batch) -> str:
    """Return the user's request id when all events share the id, else a new id that the audit log maps."""
    ids = {pending.asked.origin.carried for key in events for pending in batch.waiters[key]}
    only = ids.pop() if len(ids) == 1 else None
    return only or f"req-{new_id()}"


def _traces(origins: Mapping[ExtendKey, Origin]) -> dict[ExtendKey, str]:
    """Return the traceparent of each event whose message has one."""
    return {key: origin.traceparent for key, origin in origins.items() if origin.traceparent is not None}
