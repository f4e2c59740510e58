# SPDX-License-Identifier: Apache-2.0
"""How long an event is held for the endpoint, how long it is tried again and after which waits. Pure values.

An attempt counts when the endpoint answered for the event; a time in which it was away costs an event nothing.
"""

from dataclasses import dataclass
from enum import Enum


class SlowDelay(Enum):
    """The waits there are: one queue each, since a message's own TTL would block those behind it (measured)."""

    SHORT = ("30s", 30.0)  # after a first refusal, and for what was in hand when the endpoint went away
    MIDDLE = ("2m", 120.0)  # after a second one
    LONG = ("10m", 600.0)  # after every later one

    def __init__(self, code: str, seconds: float) -> None:
        self.code = code
        self.seconds = seconds

    @property
    def queue(self) -> str:
        """Its queue on our own bus."""
        return f"extend_bridge.slow.{self.code}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """An event is given up on, and parked, only when both limits are reached. `seconds` since it was first seen."""

    attempts: int = 5
    seconds: float = 3600.0

    def after(self, attempts: int, waited: float) -> SlowDelay | None:
        """The wait after so many answered attempts, the last of which was no; None when there is none left."""
        if attempts >= self.attempts and waited >= self.seconds:
            return None
        return _STEPS[min(attempts, len(_STEPS)) - 1]


_STEPS = (SlowDelay.SHORT, SlowDelay.MIDDLE, SlowDelay.LONG)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryLimits:
    """`batch` events a request; `retry_cap` seconds between tries of an endpoint that is away, at most; `hold`
    seconds that messages are kept in hand for it before they go into the slow lane."""

    batch: int
    retry_cap: float
    hold: float
    patience: RetryPolicy
