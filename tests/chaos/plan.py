# SPDX-License-Identifier: Apache-2.0
"""What is done to which part, and when: everything a seed decides, before anything is started. Pure."""

import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import cycle, islice
from typing import Final

from tests.chaos.options import Options


class Kind(StrEnum):
    """A fault."""

    KILL = "kill"  # SIGKILL, started again `seconds` after
    STOP = "stop"  # SIGSTOP, SIGCONT `seconds` after
    RESTART = "restart"  # SIGTERM, started again `seconds` after its end
    KILL_ON_HOLD = "kill-on-hold"  # a listener: its API is stopped first, so that it dies with messages in hand
    KILL_ALL = "kill-all"  # every process of this name at once: nobody is left to take over
    DELETE = "delete"  # a queue of ours that is made anew by whoever needs it


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault, `at` seconds after the load began. `part`: a process as in `engine-1`, or what it is done to."""

    at: float
    kind: Kind
    part: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.at:7.1f} s  {self.kind.value:12} {self.part:22} {self.seconds:4.1f} s"


COPIES: Final = 2
CONTROL: Final = ("listener", "api", "engine")
DELETED: Final = ("extend_bridge.parked", "extend_bridge.unreadable", "extend_bridge.reports")

_HEAD: Final = 1.0  # seconds before the first fault
_SHARES: Final = ("hostagent", "listener", "engine", "hostagent", "api", "hostagent", "listener", "engine")
_RARE_EVERY: Final = 7  # one fault in so many is done to the broker or the database in turn, or deletes a queue


def processes(agents: int) -> list[str]:
    """The names of all processes."""
    return [f"{name}-{n}" for name in CONTROL for n in range(COPIES)] + [f"hostagent-{n}" for n in range(agents)]


def plan(options: Options) -> list[Fault]:
    """The faults of a seed, in order; the same for the same options."""
    rng = random.Random(f"faults {options.seed}")
    servers = [f"broker-{n}" for n in range(options.cluster)] + (["database"] if options.db != "sqlite" else [])
    rng.shuffle(servers)
    rare = cycle([*_interleaved(servers, DELETED)])
    usual = cycle(_SHARES)
    parts = [next(rare) if n % _RARE_EVERY == _RARE_EVERY // 2 else next(usual) for n in range(options.kills)]
    span = max(0.0, options.spread - _HEAD)
    slot = span / max(1, len(parts))
    return [_fault(part, _HEAD + (n + rng.random()) * slot, rng, options.agents) for n, part in enumerate(parts)]


def show(options: Options) -> None:
    """Print it."""
    for fault in plan(options):
        sys.stdout.write(f"{fault}\n")


def _interleaved(servers: Sequence[str], queues: Sequence[str]) -> list[str]:
    longest = max(len(servers), len(queues))
    return [name for pair in zip(islice(cycle(servers), longest), islice(cycle(queues), longest), strict=True)
            for name in pair]  # fmt: skip


def _fault(part: str, at: float, rng: random.Random, agents: int) -> Fault:
    if part in DELETED:
        return Fault(at=at, kind=Kind.DELETE, part=part, seconds=0)
    if part.startswith("broker") or part == "database":
        kind = rng.choice((Kind.KILL, Kind.RESTART, Kind.STOP))
        return Fault(at=at, kind=kind, part=part, seconds=rng.uniform(0.2, 6.0))
    copies = agents if part == "hostagent" else COPIES
    kinds = {
        "listener": (Kind.KILL, Kind.KILL_ON_HOLD, Kind.KILL_ON_HOLD, Kind.STOP, Kind.RESTART),
        "engine": (Kind.KILL, Kind.KILL, Kind.KILL_ALL, Kind.STOP, Kind.STOP, Kind.RESTART),
        "hostagent": (Kind.KILL, Kind.KILL, Kind.KILL, Kind.STOP, Kind.RESTART),
        "api": (Kind.KILL, Kind.STOP, Kind.RESTART),
    }
    kind = rng.choice(kinds[part])
    name = part if kind is Kind.KILL_ALL else f"{part}-{rng.randrange(copies)}"
    seconds = rng.uniform(1.0, 8.0) if kind is Kind.STOP else rng.uniform(0.1, 3.0)
    return Fault(at=at, kind=kind, part=name, seconds=seconds)
