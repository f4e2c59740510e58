# SPDX-License-Identifier: Apache-2.0
"""Putting things into lanes: nothing is settled before it is safe, and a lane that is away stops nobody else."""

from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Protocol

import kombu

from bridge.core.reasons import Reason
from bridge.runtime.health import Health
from bridge.runtime.publisher import NotPublishedError
from bridge.runtime.retry import Backoff
from listener.batch import Batch
from listener.lanes import Deferred, Parked
from listener.retry_policy import SlowDelay
from listener.telemetry import Telemetry

Done = Callable[[], None]


class LanePublisher(Protocol):
    """LanePublisher: each method raises NotPublishedError, or the message is safe."""

    @property
    def slow(self) -> bool:
        """Whether there is a slow lane."""

    def defer(self, deferred: Deferred, step: SlowDelay) -> None:
        """To be sent again after a while."""

    def park(self, parked: Parked) -> None:
        """For a person."""

    def keep_raw(self, body: bytes, reason: Reason) -> None:
        """As it came."""


class LaneWriter:
    """The lanes of one worker. `check` is their health check; `done` is what follows once something is safe."""

    def __init__(self, lanes: LanePublisher, *, health: Health, check: str, chronicle: Telemetry) -> None:
        self._lanes = lanes
        self._health = health
        self._check = check
        self._chronicle = chronicle

    @property
    def slow(self) -> bool:
        """Whether there is a slow lane."""
        return self._lanes.slow

    def raw(self, message: kombu.Message, body: bytes, reason: Reason, gather: Batch) -> None:
        """A message nobody can read."""

        def done() -> None:
            self._chronicle.unreadable(reason, len(body))
            gather.acks.settle(message)

        self._keep(partial(self._lanes.keep_raw, body, reason), done, gather)

    def park(self, parked: Parked, done: Done, gather: Batch) -> None:
        """Something a person has to look at."""

        def parked_now() -> None:
            self._chronicle.parked(parked)
            done()

        self._keep(partial(self._lanes.park, parked), parked_now, gather)

    def defer(self, deferred: Deferred, step: SlowDelay, done: Done, gather: Batch) -> None:
        """An event that is sent again later."""

        def deferred_now() -> None:
            self._chronicle.deferred(deferred, step)
            done()

        self._keep(partial(self._lanes.defer, deferred, step), deferred_now, gather)

    def deferred_now(self, deferred: Deferred, step: SlowDelay) -> bool:
        """The same at once or not at all; whether the lane has it."""
        kept = self._kept(partial(self._lanes.defer, deferred, step))
        if kept:
            self._chronicle.deferred(deferred, step)
        return kept

    def catch_up(self, gather: Batch) -> None:
        """Publish what is late until the broker has it; raises StoppedError when told to stop meanwhile."""
        away = Backoff(first=0.2, cap=10, floor=0.1)
        for publish, done in gather.late:
            for failures in count(1):
                if self._kept(publish):
                    break
                gather.wait(away.delay(failures))
            done()
            gather.acks.flush()
            self._chronicle.in_hand(gather.acks.left)

    def _keep(self, publish: Callable[[], None], done: Done, gather: Batch) -> None:
        """Now or, while a lane is away, after all that needs none."""
        if gather.late or not self._kept(publish):
            gather.late.append((publish, done))
        else:
            done()

    def _kept(self, publish: Callable[[], None]) -> bool:
        try:
            publish()
        except NotPublishedError as ex:
            self._health.bad(self._check, str(ex))
            return False
        self._health.ok(self._check)
        return True
