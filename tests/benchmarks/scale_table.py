# SPDX-License-Identifier: Apache-2.0
"""What so many hosts cost, as a table, and which budgets that misses. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

HEARTBEAT: Final = 20.0  # seconds, [hostagent] heartbeat_interval
INVENTORY: Final = 600.0  # seconds, [hostagent] inventory_interval
RECONCILE: Final = 600.0  # seconds, [engine] reconcile_interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What so many hosts cost. µs, s and shares are of CPU; `start_took` alone is of the clock."""

    hosts: int
    volumes: int
    extend: float  # µs: accepted, claimed, cast, its report taken, without Cinder's reads
    beat: float  # µs a heartbeat
    inventory: float  # µs a volume in a full inventory
    start: float  # s, all agents at once
    start_took: float  # s of the clock until the last of them is known
    reconcile: float  # s, a whole pass
    peak: float  # MiB, the engine's most

    @property
    def talk(self) -> float:
        """Share of a core for heartbeats and inventories at their usual intervals."""
        return self.beat * 1e-6 * self.hosts / HEARTBEAT + self.inventory * 1e-6 * self.volumes / INVENTORY


def table(found: Sequence[Fleet]) -> str:
    """As the documentation has it."""
    flat = found[0].extend
    lines: list[tuple[str, Sequence[str]]] = [
        ("hosts", [f"{f.hosts:,}" for f in found]),
        ("volumes in use", [f"{f.volumes:,}" for f in found]),
        ("an extend, ten at a time, µs", [f"{f.extend:,.0f}" for f in found]),
        ("  against the smallest fleet (0.8 to 1.2)", [f"{f.extend / flat:.2f}" for f in found]),
        ("a heartbeat, µs", [f"{f.beat:,.0f}" for f in found]),
        ("a volume in a full inventory, µs", [f"{f.inventory:,.0f}" for f in found]),
        ("heartbeats and inventories, % of a core (10)", [f"{f.talk * 100:.2f}" for f in found]),
        ("a reconcile pass, s", [f"{f.reconcile:.2f}" for f in found]),
        ("  over its interval, % of a core (1)", [f"{f.reconcile / RECONCILE * 100:.2f}" for f in found]),
        ("all agents start at once, s of CPU", [f"{f.start:.1f}" for f in found]),
        ("  until the last is known, s", [f"{f.start_took:.0f}" for f in found]),
        ("the engine's memory at most, MiB (200)", [f"{f.peak:.0f}" for f in found]),
    ]
    return "\n".join(f"{what:<48}" + "".join(f"{value:>10}" for value in values) for what, values in lines)


def missed(found: Sequence[Fleet]) -> list[str]:
    """The budgets that do not hold, in words."""
    wrong = []
    for fleet in found:
        for what, value, most in (
            ("an extend", fleet.extend / found[0].extend, 1.2),
            ("heartbeats and inventories", fleet.talk, 0.1),
            ("a reconcile pass", fleet.reconcile / RECONCILE, 0.01),
            ("memory", fleet.peak, 200.0),
        ):
            if value > most:
                wrong.append(f"{what} of {fleet.hosts:,} hosts: {value:.3g}, budget {most:g}")
    return wrong
