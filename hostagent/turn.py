# SPDX-License-Identifier: Apache-2.0
"""How long one order may wait for its device: as long as it likes while nobody else waits for the worker."""

import time
from collections.abc import Callable
from typing import Protocol


class Stopping(Protocol):
    """threading.Event, as far as it is used."""

    def wait(self, timeout: float) -> bool:
        """Whether it is set, after so many seconds at most."""


class Turn:
    """One worker's. An array that shows its volumes' sizes late would otherwise hold every worker, and volumes of
    other storage would wait behind it; the order that gives way is cast again."""

    def __init__(
        self,
        stopping: Stopping,
        crowded: Callable[[], bool],
        fair: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`fair`: seconds of a turn nobody has to give up; `crowded`: whether volumes wait for a worker."""
        self._stopping = stopping
        self._crowded = crowded
        self._fair = fair
        self._clock = clock
        self._until = 0.0

    def begin(self) -> None:
        """A new order."""
        self._until = self._clock() + self._fair

    def sleep(self, seconds: float) -> bool:
        """Whether the order is to stop waiting: the agent ends, or others wait and it had its turn."""
        if self._stopping.wait(seconds):
            return True
        return self._clock() >= self._until and self._crowded()
