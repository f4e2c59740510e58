# SPDX-License-Identifier: Apache-2.0
"""A histogram of durations in little memory. Buckets grow by 2 %, so a percentile is accurate to 1 %."""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

_GROWTH: Final = 1.02
_STEP: Final = math.log(_GROWTH)
_SMALLEST: Final = 1e-6


@dataclass(slots=True)
class Durations:
    """The histogram of one hop's durations, in seconds."""

    count: int = 0
    longest: float = 0.0
    _buckets: Counter[int] = field(default_factory=Counter)

    def add(self, seconds: float) -> None:
        """Count one more duration."""
        self.count += 1
        self.longest = max(self.longest, seconds)
        self._buckets[math.ceil(math.log(max(seconds, _SMALLEST)) / _STEP)] += 1

    def percentile(self, percent: float) -> float:
        """Return the duration at a percentile, accurate to 1 %; 0 for an empty histogram."""
        rank, seen = math.ceil(self.count * percent / 100), 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= rank:
                return min(_middle(bucket), self.longest)
        return self.longest

    def spread(self) -> list[tuple[float, int]]:
        """Return (seconds, count) of each bucket for a plot, shortest first."""
        return [(_middle(bucket), self._buckets[bucket]) for bucket in sorted(self._buckets)]


def _middle(bucket: int) -> float:
    return math.exp((bucket - 0.5) * _STEP)
