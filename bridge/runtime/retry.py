# SPDX-License-Identifier: Apache-2.0
"""Back-off with full jitter: one policy per hop, made from settings, interruptible.

The maths is tenacity's; what is ours is that a durable row can ask for the delay of its n-th attempt.
"""

from dataclasses import dataclass

import tenacity

_NO_CALL = tenacity.Retrying()


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Delays in seconds, uniformly drawn from 0 to min(cap, first · 2^(attempt-1)), never below `floor`."""

    first: float = 1.0
    cap: float = 600.0
    floor: float = 0.0

    def wait(self) -> tenacity.wait.wait_base:
        """The policy as tenacity takes it."""
        return tenacity.wait_random_exponential(multiplier=self.first, max=self.cap, min=self.floor)

    def delay(self, attempt: int) -> float:
        """The delay after the given attempt, counted from 1."""
        state = tenacity.RetryCallState(_NO_CALL, None, (), {})
        state.attempt_number = max(1, min(attempt, 64))
        return float(self.wait()(state))
