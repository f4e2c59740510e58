# SPDX-License-Identifier: Apache-2.0
"""Writer of the lanes: a message is settled after its copy is safe; an unreachable lane stops no other message."""

from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Protocol

import kombu

from bridge.core.reasons import Reason
from bridge.runtime.health import LIMIT, Health, moving
from bridge.runtime.publisher import NotPublishedError
from bridge.runtime.retry import Backoff
from listener.batch import Batch
from listener.lanes import Deferred, Parked
from listener.retry_policy import SlowDelay
from listener.telemetry import Telemetry

Done = Callable[[], None]


class LanePublisher(Protocol):
    """The lanes on our bus. After each call the message is safe, or NotPublishedError was raised."""

    @property
    def slow(self) -> bool:
        """True where the bus has a slow lane."""

    def defer(self, deferred: Deferred, step: SlowDelay) -> None:
        """Put an event into the slow lane."""

    def park(self, parked: Parked) -> None:
        """Put an event into the parked lane."""

    def keep_raw(self, body: bytes, reason: Reason) -> None:
        """Put a message into the unreadable lane, as received."""


class LaneWriter:
    """The lanes of one worker. `check`: name of their health check. `done`: called once a message is safe."""

    def __init__(self, lanes: LanePublisher, *, health: Health, check: str, telemetry: Telemetry) -> None:
        self._lanes = lanes
        self._health = health
        self._check = check
        self._telemetry = telemetry
        health.ok(check, "not needed yet", good_for=LIMIT)

    @property
    def slow(self) -> bool:
        """True where the bus has a slow lane."""
        return self._lanes.slow

    def raw(self, message: kombu.Message, body: bytes, reason: Reason, batch: Batch) -> None:
        """Put a message that cannot be read into the unreadable lane."""

        def done() -> None:
            self._telemetry.unreadable(reason, len(body))
            batch.acks.settle(message)

        self._keep(partial(self._lanes.keep_raw, body, reason), done, batch)

    def park(self, parked: Parked, done: Done, batch: Batch) -> None:
        """Put an event that needs a person into the parked lane."""

        def parked_now() -> None:
            self._telemetry.parked(parked)
            done()

        self._keep(partial(self._lanes.park, parked), parked_now, batch)

    def defer(self, deferred: Deferred, step: SlowDelay, done: Done, batch: Batch) -> None:
        """Put an event into the slow lane, from which the event is sent again later."""

        def deferred_now() -> None:
            self._telemetry.deferred(deferred, step)
            done()

        self._keep(partial(self._lanes.defer, deferred, step), deferred_now, batch)

    def deferred_now(self, deferred: Deferred, step: SlowDelay) -> bool:
        """Put an event into the slow lane at once; return False where the lane cannot take it now."""
        kept = self._kept(partial(self._lanes.defer, deferred, step))
        if kept:
            self._telemetry.deferred(deferred, step)
        return kept

    def catch_up(self, batch: Batch) -> None:
        """Publish the deferred writes until the broker has them; raises ShuttingDownError when told to stop."""
        backoff = Backoff(first=0.2, cap=10, floor=0.1)
        for publish, done in batch.deferred_writes:
            for failures in count(1):
                if self._kept(publish):
                    break
                batch.wait(backoff.delay(failures))
            done()
            batch.acks.flush()
            self._telemetry.in_hand(batch.acks.left)

    def _keep(self, publish: Callable[[], None], done: Done, batch: Batch) -> None:
        """Publish now; while a lane is unreachable, publish after the messages that do not need a lane."""
        if batch.deferred_writes or not self._kept(publish):
            batch.deferred_writes.append((publish, done))
        else:
            done()

    def _kept(self, publish: Callable[[], None]) -> bool:
        moving()
        try:
            publish()
        except NotPublishedError as ex:
            self._health.bad(self._check, str(ex), unanswered=ex.reason is Reason.BUS_UNREACHABLE)
            return False
        self._health.ok(self._check, good_for=LIMIT)
        return True
