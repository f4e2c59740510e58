# SPDX-License-Identifier: Apache-2.0
"""Retry policy of an event: delays, number of attempts, and time limits. Pure values.

An attempt counts when the endpoint answered for the event. Time of an unreachable endpoint does not count.
"""

from dataclasses import dataclass
from enum import Enum


class SlowDelay(Enum):
    """The delays, one queue each, because a TTL per message blocks the messages behind it (measured)."""

    SHORT = ("30s", 30.0)  # after a first refusal, and for events in hand when the endpoint became unreachable
    MIDDLE = ("2m", 120.0)  # after a second refusal
    LONG = ("10m", 600.0)  # after every later refusal

    def __init__(self, code: str, seconds: float) -> None:
        self.code = code
        self.seconds = seconds

    @property
    def queue(self) -> str:
        """The queue of this delay on our own bus."""
        return f"extend_bridge.slow.{self.code}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """The limits after which an event is parked; both must be reached. `seconds` since the event was first seen."""

    attempts: int = 5
    seconds: float = 3600.0

    def after(self, attempts: int, waited: float) -> SlowDelay | None:
        """Return the delay after this number of refused attempts; None when the event is to be parked."""
        if attempts >= self.attempts and waited >= self.seconds:
            return None
        return _STEPS[min(attempts, len(_STEPS)) - 1]


_STEPS = (SlowDelay.SHORT, SlowDelay.MIDDLE, SlowDelay.LONG)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryLimits:
    """The limits of the delivery of events.

    `batch`: events per request. `retry_cap`: longest pause in seconds between tries of an unreachable endpoint.
    `hold`: seconds for which messages are kept in hand before they go into the slow lane.
    """

    batch: int
    retry_cap: float
    hold: float
    retry: RetryPolicy
