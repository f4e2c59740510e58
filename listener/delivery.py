# SPDX-License-Identifier: Apache-2.0
"""What is done with the messages of one gather: read, post, settle each. Acknowledged is only what is safe."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

import kombu

from bridge.core.extend import ExtendKey, new_id
from bridge.core.reasons import Reason
from bridge.runtime.health import Health
from bridge.runtime.raw_messages import COMPRESSION
from bridge.runtime.retry import Backoff
from listener.batch import Batch, Bus, PendingMessage, ShuttingDownError
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
    """The endpoint was away for so long that what was in hand went into the slow lane.

    One event of it, as plain values, to ask again with; `after` seconds where the endpoint said when.
    """

    reason: Reason
    key: ExtendKey
    origin: Origin
    after: float | None


class Worker:
    """Works off gathers, one at a time. For one thread. `check` is the endpoint's health check."""

    def __init__(
        self,
        *,
        limits: DeliveryLimits,
        reader: Reader,
        courier: EndpointClient,
        keeping: LaneWriter,
        health: Health,
        check: str,
        chronicle: Telemetry,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._limits = limits
        self._reader = reader
        self._courier = courier
        self._keeping = keeping
        self._health = health
        self._check = check
        self._chronicle = chronicle
        self._clock = clock
        self._away_since: float | None = None

    def work(self, messages: Sequence[kombu.Message], bus: Bus, stop: threading.Event) -> Away | None:
        """Settle and acknowledge every one of them.

        None, or Away when events had to go into the slow lane because the endpoint was away for too long. Raises
        StoppedError when told to stop while something is away, and what `bus` raises.
        """
        gather = self._open(messages, bus, stop)
        away: Away | None = None
        events, size = list(gather.owners), self._limits.batch
        for start in range(0, len(events), size):
            batch = events[start : start + size]
            if away is None:
                away = self._deliver(batch, gather)
            else:
                self._put_aside(batch, away.reason, gather)
        self._keeping.catch_up(gather)
        return away

    def put_aside(self, messages: Sequence[kombu.Message], away: Away, bus: Bus, stop: threading.Event) -> None:
        """Settle and acknowledge them without asking the endpoint, which is away. Raises as `work` does."""
        gather = self._open(messages, bus, stop)
        self._put_aside(list(gather.owners), away.reason, gather)
        self._keeping.catch_up(gather)

    def still_away(self, away: Away) -> Away | None:
        """Ask the endpoint again; None when it answers. What it says of the event is for the record only: the event
        comes again from the slow lane."""
        if away.reason is Reason.ALL_HIDDEN:
            self._away_since = None
            return None  # one event cannot tell; the next gather does
        sent_as = f"req-{new_id()}"
        started = time.monotonic()
        judgement = next(self._courier.deliver([away.key], sent_as))
        if isinstance(judgement, Hold):
            self._health.bad(self._check, judgement.reason.text)
            return Away(reason=judgement.reason, key=away.key, origin=away.origin, after=judgement.after)
        if isinstance(judgement, Settle):
            verdict = judgement.verdicts[away.key]
            self._chronicle.asked_again(away.key, verdict, away.origin, sent_as, time.monotonic() - started)
        self._answered()
        return None

    def _open(self, messages: Sequence[kombu.Message], bus: Bus, stop: threading.Event) -> Batch:
        """Read them; what needs no endpoint is settled."""
        gather = Batch(bus, bus.acks(messages), stop)
        for message in messages:
            self._read(message, gather)
        self._acknowledge(gather)
        return gather

    def _read(self, message: kombu.Message, gather: Batch) -> None:
        body = message.body if isinstance(message.body, bytes) else _bytes(message.body)
        found = self._reader.read(body, message.headers.get(COMPRESSION))
        match found:
            case Nothing():
                gather.acks.settle(message)
            case Events():
                gather.take(message, found)
            case Raw():
                self._keeping.raw(message, body, found.reason, gather)
            case Parked():
                self._keeping.park(found, partial(gather.acks.settle, message), gather)

    def _deliver(self, events: Sequence[ExtendKey], gather: Batch) -> Away | None:
        """Send until each event has its verdict; hold while the endpoint is away, for as long as may be."""
        backoff, left = Backoff(first=0.5, cap=self._limits.retry_cap, floor=0.1), list(events)
        for failures in count(1):
            gather.bus.breathe()
            hold = self._send(left, gather)
            if hold is None:
                break
            left = [key for key in left if key in gather.owners]
            self._health.bad(self._check, hold.reason.text)
            if failures == 1:
                for key in left:
                    for hand in gather.owners[key]:
                        self._chronicle.held(key, hold.reason, hand.asked.origin)
            wait = backoff.delay(failures) if hold.after is None else max(0.1, hold.after)
            if self._keeping.slow:
                longest = self._hold_left()
                if longest > 0:
                    wait = min(wait, longest)
                elif (away := self._moved(left, hold, gather)) is not None:
                    return away
            gather.wait(wait)
        self._answered()
        return None

    def _hold_left(self) -> float:
        """Seconds until the endpoint has been away for as long as may be.

        Not of one gather: a broker that takes messages back meanwhile (consumer_timeout) counts their deliveries.
        """
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
        return self._away_since + self._limits.hold - now

    def _answered(self) -> None:
        self._away_since = None
        self._health.ok(self._check)

    def _moved(self, events: Sequence[ExtendKey], hold: Hold, gather: Batch) -> Away | None:
        """The events into the slow lane, at once. None while the lane is away as well: whichever is back first, it
        or the endpoint, then has what is left."""
        first = events[0]
        origin = gather.owners[first][0].asked.origin
        for key in events:
            hands = gather.owners[key]
            while hands:
                deferred = hands[0].deferred(key, hands[0].asked.attempts, hold.reason)
                if not self._keeping.deferred_now(deferred, SlowDelay.SHORT):
                    return None
                gather.done(hands.pop(0), key)
            del gather.owners[key]
            self._acknowledge(gather)
        return Away(reason=hold.reason, key=first, origin=origin, after=hold.after)

    def _put_aside(self, events: Sequence[ExtendKey], reason: Reason, gather: Batch) -> None:
        for key in events:
            for hand in gather.owners.pop(key):
                deferred = hand.deferred(key, hand.asked.attempts, reason)
                self._keeping.defer(deferred, SlowDelay.SHORT, partial(gather.done, hand, key), gather)
            self._acknowledge(gather)

    def _send(self, events: Sequence[ExtendKey], gather: Batch) -> Hold | None:
        """One request, or several where it is refused; None when every event has its verdict."""
        sent_as = _request_id(events, gather)
        started = time.monotonic()
        for judgement in self._courier.deliver(events, sent_as):
            match judgement:
                case Settle():
                    seconds = time.monotonic() - started
                    for key, verdict in judgement.verdicts.items():
                        for hand in gather.owners.pop(key):
                            self._chronicle.posted(key, verdict, hand.asked.origin, sent_as, seconds)
                            self._carry_out(verdict, key, hand, gather)
                    self._acknowledge(gather)
                case Split():
                    if gather.stop.is_set():
                        raise ShuttingDownError
                case Hold():
                    return judgement
            gather.bus.breathe()
            started = time.monotonic()
        return None

    def _carry_out(self, verdict: Verdict, key: ExtendKey, hand: PendingMessage, gather: Batch) -> None:
        """A verdict for one message that asked for the event."""
        done = partial(gather.done, hand, key)
        if verdict.kind is Kind.DELIVERED:
            done()
            return
        attempts = hand.asked.attempts + 1
        parked = Parked(
            reason=verdict.reason,
            volume_id=key.volume_id,
            server_id=key.server_id,
            origin=hand.asked.origin,
            first_seen=hand.asked.first_seen,
            attempts=attempts,
        )
        step = self._limits.patience.after(attempts, self._clock() - hand.asked.first_seen)
        if verdict.kind is Kind.PARK or step is None:
            self._keeping.park(parked, done, gather)
        elif self._keeping.slow:
            self._keeping.defer(hand.deferred(key, attempts, verdict.reason), step, done, gather)
        else:
            self._keeping.park(replace(parked, mark=Reason.NO_SLOW_LANE), done, gather)

    def _acknowledge(self, gather: Batch) -> None:
        gather.acks.flush()
        self._chronicle.in_hand(gather.acks.left)


def _request_id(events: Sequence[ExtendKey], gather: Batch) -> str:
    """The user's own request id when all events share one, else a new one that the audit log maps."""
    ids = {hand.asked.origin.carried for key in events for hand in gather.owners[key]}
    only = ids.pop() if len(ids) == 1 else None
    return only or f"req-{new_id()}"


def _bytes(body: memoryview | str) -> bytes:
    """Memory's transport hands out text."""
    return body.encode("utf-8", "surrogateescape") if isinstance(body, str) else bytes(body)
