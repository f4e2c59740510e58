# SPDX-License-Identifier: Apache-2.0
"""How a figure is taken: CPU of this process per item, with a calibration loop beside it.

This kind of machine changes speed by a factor of 1.9 from minute to minute, so a figure alone says little: compare
it with the bare library's of the same run, and look at the calibration.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table: µs of CPU per item, unless `unit` says else. `budget` None: nothing to hold to."""

    what: str
    value: float
    budget: float | None = None
    bare: float | None = None
    bare_what: str = ""
    unit: str = "µs"

    @property
    def met(self) -> bool:
        """Whether the budget holds."""
        return self.budget is None or self.value <= self.budget


@contextmanager
def cpu() -> Iterator[Callable[[], float]]:
    """Seconds of CPU this process, all its threads, used in the block."""
    started, ended = time.process_time(), 0.0
    yield lambda: ended - started
    ended = time.process_time()


def per_item(work: Callable[[], object], items: int) -> float:
    """µs of CPU per item of one call of `work`."""
    with cpu() as used:
        work()
    return used() / items * 1e6


def calibration() -> float:
    """Milliseconds of CPU a fixed loop takes now."""
    with cpu() as used:
        total = 0
        for n in range(1_000_000):
            total += n
    return used() * 1e3


def table(rows: list[Row]) -> str:
    """As a person reads it."""
    lines = [f"{'stage':<58} {'measured':>10} {'budget':>9} {'':>4} bare library, same run"]
    for row in rows:
        budget = f"{row.budget:,.0f} {row.unit}" if row.budget is not None else "-"
        bare = f"{row.bare:,.0f} {row.unit} {row.bare_what}" if row.bare is not None else ""
        verdict = "" if row.budget is None else "ok" if row.met else "OVER"
        lines.append(f"{row.what:<58} {row.value:>7,.0f} {row.unit} {budget:>9} {verdict:>4} {bare}")
    return "\n".join(lines)
