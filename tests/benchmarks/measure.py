# SPDX-License-Identifier: Apache-2.0
"""How a figure is taken: CPU of a process per item, with a calibration loop beside it.

This kind of machine changes speed by a factor of 1.9 from minute to minute, so a figure alone says little: compare
it with the bare library's of the same run, and look at the calibration.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

NORMAL: Final = 33.0
"""Milliseconds the calibration loop takes where the budgets were set."""
_TICK: Final = 1.0 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table: µs of CPU per item, unless `unit` says else. `budget` None: nothing to hold to.

    `least`: the budget is what there has to be at least. `bare` is the bare library's figure of the same run.
    """

    what: str
    value: float
    budget: float | None = None
    least: bool = False
    bare: float | None = None
    bare_what: str = ""
    unit: str = "µs"

    @property
    def met(self) -> bool:
        """Whether the budget holds."""
        if self.budget is None:
            return True
        return self.value >= self.budget if self.least else self.value <= self.budget


@contextmanager
def cpu() -> Iterator[Callable[[], float]]:
    """Seconds of CPU this process, all its threads, used in the block."""
    started, ended = time.process_time(), 0.0
    yield lambda: ended - started
    ended = time.process_time()


def cpu_of(pid: int) -> float:
    """Seconds of CPU another process has used."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) * _TICK


def peak_of(pid: int) -> float:
    """MiB another process has had in memory at most."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def per_item(work: Callable[[], object], items: int) -> float:
    """µs of CPU per item of one call of `work`."""
    with cpu() as used:
        work()
    return used() / items * 1e6


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return quantile(values, 0.5)


def quantile(values: Sequence[float], share: float) -> float:
    """The value so many are not above; 0 where there is none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def calibration() -> float:
    """Milliseconds of CPU a fixed loop takes now."""
    with cpu() as used:
        total = 0
        for n in range(1_000_000):
            total += n
    return used() * 1e3


def table(rows: Sequence[Row]) -> str:
    """As a person reads it."""
    lines = [f"{'stage':<66} {'measured':>12} {'budget':>12}      bare library, same run"]
    for row in rows:
        budget = f"{'≥' if row.least else '≤'} {row.budget:,.0f} {row.unit}" if row.budget is not None else "-"
        bare = f"{row.bare:,.0f} {row.unit} {row.bare_what}" if row.bare is not None else ""
        verdict = "" if row.budget is None else "met" if row.met else "OVER"
        lines.append(
            f"{row.what:<66} {f'{row.value:,.0f} {row.unit}':>12} {budget:>12} {verdict:>4} {bare}".rstrip()
        )
    return "\n".join(lines)
