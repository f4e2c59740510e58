# SPDX-License-Identifier: Apache-2.0
"""Verdicts of tools/guests, and the seconds they are judged by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, Final

_RESIZES: Final = frozenset({"resize", "tell"})
"""Steps of an order with the call of libvirt that makes QEMU resize."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one volume in one way. `seconds`: from the guest being back until it saw the size.

    `held`: those of them in which QEMU stood in a resize of any of its disks: it does nothing else meanwhile.
    """

    way: str
    volume: str
    told: bool
    seconds: float | None
    words: str
    held: float = 0.0

    @property
    def ours(self) -> float:
        """Return the seconds without the hypervisor's own resize; 0 for a disk whose guest looks at boot."""
        return (self.seconds or 0.0) - self.held


def resizes(steps: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """Return when a resize of the hypervisor began and ended, by the steps of attempts in the audit log. Pure.

    The steps of an attempt have the time of its report, which ends the last of them.
    """
    found = []
    for _attempt, lines in groupby(steps, key=lambda line: line["attempt_id"]):
        whole = list(lines)
        end = datetime.fromisoformat(whole[-1]["time"]).timestamp()
        for line in reversed(whole):
            if line["data"]["step"] in _RESIZES:
                found.append((end - line["seconds"], end))
            end -= line["seconds"]
    return found


def overlap(spans: Sequence[tuple[float, float]], began: float, ended: float) -> float:
    """Return the seconds between two times that lie in any of these spans. Pure."""
    total, at = 0.0, began
    for start, end in sorted(spans):
        at = max(at, start)
        if min(end, ended) > at:
            total += min(end, ended) - at
            at = end
    return total


def slowest_lines(verdicts: Sequence[Verdict], within: float | None) -> tuple[list[str], bool]:
    """Return the lines about the disks that were told last, and whether any took longer than `within`. Pure.

    The hypervisor's own resize is counted apart.
    """
    seen = [verdict for verdict in verdicts if verdict.seconds is not None]
    if not seen:
        return [], False
    slowest, held = max(seen, key=lambda verdict: verdict.ours), max(seen, key=lambda verdict: verdict.held)
    late = [verdict for verdict in seen if within is not None and verdict.ours > within]
    more = f", {len(late)} later than {within:g} s" if late else ""
    return [
        f"the hypervisor's own resize: up to {held.held:.2f} s ({held.way}, {held.volume})",
        f"slowest {slowest.ours:.2f} s ({slowest.way}, {slowest.volume}){more}",
    ], bool(late)
