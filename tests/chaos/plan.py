# SPDX-License-Identifier: Apache-2.0
"""What is done to which part, and when: everything a seed decides, before anything is started. Pure."""

import random
import sys
from collections.abc import Iterator, Mapping, Sequence
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
    KILL_ON_HOLD = "kill-on-hold"  # a listener, with many messages in hand: its API is killed before it
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
DELETED: Final = ("extend_bridge.unreadable", "extend_bridge.parked", "extend_bridge.reports")

_SERVER: Final = (Kind.KILL, Kind.RESTART, Kind.STOP)
_KINDS: Final[Mapping[str, Sequence[Kind]]] = {
    "listener": (Kind.KILL_ON_HOLD, Kind.KILL_ON_HOLD, Kind.KILL_ON_HOLD, Kind.KILL, Kind.STOP, Kind.RESTART),
    "api": (Kind.KILL, Kind.STOP, Kind.RESTART),
    "engine": (Kind.KILL_ALL, Kind.KILL, Kind.KILL, Kind.STOP, Kind.STOP, Kind.RESTART),
    "hostagent": (Kind.KILL, Kind.KILL, Kind.KILL, Kind.STOP, Kind.RESTART),
    "broker": _SERVER,
    "database": _SERVER,
}

_SWAP: Final = 0.5  # seconds an upgrade takes to put the new code in place
_HEAD: Final = 1.0  # seconds before the first fault
_SHARES: Final = (
    "hostagent",
    "listener",
    "engine",
    "listener",
    "hostagent",
    "api",
    "listener",
    "engine",
    "hostagent",
)
_RARE_EVERY: Final = 5  # one fault in so many is done to the broker or the database in turn, or deletes a queue


def processes(agents: int) -> list[str]:
    """The names of all processes."""
    return [f"{name}-{n}" for name in CONTROL for n in range(COPIES)] + [f"hostagent-{n}" for n in range(agents)]


def plan(options: Options) -> list[Fault]:
    """The faults of a seed, in order; the same for the same options."""
    if options.rolling:
        return _rolling(options)
    rng = random.Random(f"faults {options.seed}")
    servers = [f"broker-{n}" for n in range(options.cluster)] + (["database"] if options.db != "sqlite" else [])
    rng.shuffle(servers)
    rare, usual = cycle(_interleaved(DELETED, servers)), cycle(_SHARES)
    decks = {name: _deck(kinds, rng) for name, kinds in _KINDS.items()}
    slot = max(0.0, options.spread - _HEAD) / max(1, options.kills)
    faults = []
    for n in range(options.kills):
        at = _HEAD + (n + rng.random()) * slot
        target = next(rare) if n % _RARE_EVERY == _RARE_EVERY // 2 else next(usual)
        name = target.rpartition("-")[0] if target in servers and target != "database" else target
        kind = Kind.DELETE if target in DELETED else next(decks[name])
        copies = {"hostagent": options.agents}.get(target, COPIES)
        one = f"{target}-{rng.randrange(copies)}" if target in _SHARES and kind is not Kind.KILL_ALL else target
        seconds = rng.uniform(1.0, 8.0) if kind is Kind.STOP else rng.uniform(0.1, 3.0)
        faults.append(Fault(at=at, kind=kind, part=one, seconds=0.0 if kind is Kind.DELETE else seconds))
    return faults


def _rolling(options: Options) -> list[Fault]:
    """Each process once, as an upgrade does it: told to end, and started again once it has."""
    names = processes(options.agents)
    slot = max(0.0, options.spread - _HEAD) / len(names)
    return [Fault(at=_HEAD + n * slot, kind=Kind.RESTART, part=name, seconds=_SWAP) for n, name in enumerate(names)]


def _deck(kinds: Sequence[Kind], rng: random.Random) -> Iterator[Kind]:
    """The first kind first, so that a short run has it too; then all of them, shuffled, again and again."""
    first, *others = kinds
    rng.shuffle(others)
    return cycle([first, *others])


def show(options: Options) -> None:
    """Print the faults of a seed."""
    if options.gray:
        from tests.chaos.gray_plan import show_gray  # noqa: PLC0415 - it reads this module's names

        show_gray(options)
        return
    for fault in plan(options):
        sys.stdout.write(f"{fault}\n")


def _interleaved(first: Sequence[str], second: Sequence[str]) -> list[str]:
    longest = max(len(first), len(second))
    return [name for pair in zip(islice(cycle(first), longest), islice(cycle(second), longest), strict=True)
            for name in pair]  # fmt: skip
