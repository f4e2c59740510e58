# SPDX-License-Identifier: Apache-2.0
"""Back-off with full jitter, and the one loop that keeps trying: interruptible, with the reason in its health
check.
"""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from bridge.runtime.health import Health

T = TypeVar("T")

SETTLED: Final = 60.0
"""Seconds a body has to run for its next failure to count as the first again."""
_STEPS: Final = 64  # doublings after which every cap is reached


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Delays in seconds, drawn evenly from 0 to min(cap, first · 2^(attempt-1)), never below `floor`."""

    first: float = 1.0
    cap: float = 600.0
    floor: float = 0.0

    def delay(self, attempt: int) -> float:
        """Return the delay after the given attempt, counted from 1."""
        most = min(self.cap, self.first * 2.0 ** (max(1, min(attempt, _STEPS)) - 1))
        return max(self.floor, random.uniform(0, most))  # noqa: S311 - no secret


def keep_trying(
    stop: threading.Event,
    backoff: Backoff,
    health: Health,
    check: str,
    errors: tuple[type[BaseException], ...],
    body: Callable[[], T],
    *,
    words: Callable[[BaseException], str] = lambda error: " ".join(str(error).split()) or type(error).__name__,
    settled: float = SETTLED,
) -> T | None:
    """Run `body` until it returns; return its value, or None when `stop` is set first.

    An error of `errors` marks the check as not ready, in `words`, and the body runs again after the back-off. A
    body that ran for `settled` seconds starts the back-off anew. `body` itself marks its check ready.
    """
    failures = 0
    while not stop.is_set():
        started = time.monotonic()
        try:
            return body()
        except errors as error:
            failures = 1 if time.monotonic() - started > settled else failures + 1
            health.bad(check, words(error))
        stop.wait(backoff.delay(failures))
    return None
