# SPDX-License-Identifier: Apache-2.0
"""Gray faults and when they come: everything a seed decides. Pure.

The first half of them comes alone, each with time to be noticed and healed; the others overlap.
"""

import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import cycle
from typing import Final

from tests.chaos.options import Options


class Service(StrEnum):
    """What a process speaks to over a connection of its own."""

    BUS = "bus"  # our own bus: lanes, casts, reports
    NOTIFICATIONS = "notifications"  # Cinder's bus
    JOURNAL = "journal"  # the database
    CINDER = "cinder"  # Cinder's API
    ENDPOINT = "endpoint"  # os-server-external-events
    KEYSTONE = "keystone"  # tokens: one's own, and in the API those of callers
    NOVA = "nova"  # the locator's reads
    LIBVIRT = "libvirt"  # the socket of a played libvirtd


USES: Final[Mapping[str, Sequence[Service]]] = {
    "listener": (Service.NOTIFICATIONS, Service.BUS, Service.ENDPOINT, Service.KEYSTONE),
    "api": (Service.JOURNAL, Service.KEYSTONE),
    "engine": (Service.JOURNAL, Service.BUS, Service.CINDER, Service.KEYSTONE, Service.NOVA),
    "hostagent": (Service.BUS, Service.LIBVIRT),
}
"""By kind of process."""


class Gray(StrEnum):
    """A fault that leaves things half alive."""

    FREEZE_OLD = "freeze-old"  # open connections stay open and nothing moves on them; new ones work
    FREEZE = "freeze"  # the same of new connections
    LOSE = "lose"  # what is sent is taken and thrown away
    DRIP = "drip"  # a byte now and then
    DELAY = "delay"  # each piece comes late
    RESET = "reset"  # open connections break
    REFUSE = "refuse"  # new connections are turned away, the open ones break
    BLOCKED = "blocked"  # the broker's memory alarm: it takes no messages
    READ_ONLY = "read-only"  # the database takes no writes
    LOCKED = "locked"  # a lock on the journal's tables that is not let go
    FULL = "full"  # the journal's disk is full


LINK_FAULTS: Final = (
    Gray.FREEZE_OLD,
    Gray.DRIP,
    Gray.FREEZE,
    Gray.LOSE,
    Gray.REFUSE,
    Gray.DELAY,
    Gray.RESET,
)
DEAD: Final = frozenset({Gray.FREEZE, Gray.LOSE, Gray.REFUSE})
"""Faults under which nothing at all gets through, neither on the old connections nor on new ones."""
_JOURNAL_FAULTS: Final = {
    "sqlite": (Gray.LOCKED, Gray.FULL),
    "postgresql": (Gray.READ_ONLY, Gray.LOCKED),
    "mariadb": (Gray.READ_ONLY, Gray.LOCKED),
}
_LASTS: Final = (35.0, 50.0)  # seconds: longer than a check may read ready without a reason
_AT_ONCE: Final = frozenset({Gray.RESET})  # over as soon as they are done
_HEAD: Final = 3.0
_HEALS_IN: Final = 20.0  # seconds from one fault alone to the next
_OVERLAP: Final = (5.0, 25.0)  # seconds from one to the next of those that overlap


@dataclass(frozen=True, slots=True, kw_only=True)
class GrayFault:
    """One fault: from `at` on, for `seconds`. `kind` of process and `service` name the connections, None: a server.

    `copies`: the numbers of the processes it is done to, empty: all of them.
    """

    at: float
    seconds: float
    fault: Gray
    kind: str
    service: Service | None
    copies: tuple[int, ...] = ()

    def __str__(self) -> str:
        where = f"{self.kind}{list(self.copies) or ''} -> {self.service}" if self.service else self.kind
        return f"{self.at:7.1f} s  {self.fault.value:12} {where:32} {self.seconds:4.1f} s"


def gray_plan(options: Options) -> list[GrayFault]:
    """Return the faults of a seed, in order; the same for the same options."""
    rng = random.Random(f"gray {options.seed}")
    deck = _deck(options, rng)
    alone = (options.kills + 1) // 2
    at, faults = _HEAD, []
    for n in range(options.kills):
        fault, kind, service = next(deck)
        seconds = rng.uniform(*_LASTS) if options.lasts is None else options.lasts
        seconds = 0.0 if fault in _AT_ONCE else seconds
        together = n >= alone
        copies = (rng.randrange(2),) if together and service is not None and rng.random() < 0.5 else ()
        faults.append(GrayFault(at=at, seconds=seconds, fault=fault, kind=kind, service=service, copies=copies))
        at += rng.uniform(*_OVERLAP) if together else seconds + _HEALS_IN
    return faults


def gray_spread(options: Options) -> float:
    """Return the seconds from the first fault to the end of the last."""
    return max((fault.at + fault.seconds for fault in gray_plan(options)), default=_HEAD)


def link_names() -> list[str]:
    """Return the names of all links, and of each fault of each."""
    links = [f"{kind}:{service.value}" for kind, services in USES.items() for service in services]
    return [*links, *(f"{link}:{fault.value}" for link in links for fault in LINK_FAULTS)]


def show_gray(options: Options) -> None:
    """Print the plan."""
    for fault in gray_plan(options):
        sys.stdout.write(f"{fault}\n")


def _deck(options: Options, rng: random.Random) -> Iterator[tuple[Gray, str, Service | None]]:
    """Every fault of every link and server, shuffled, with the kinds of fault and the links taking turns."""
    links: list[tuple[str, Service]] = [
        (kind, service)
        for kind, services in USES.items()
        for service in services
        if service is not Service.JOURNAL or options.db != "sqlite"
    ]
    rng.shuffle(links)
    servers: list[tuple[Gray, str, Service | None]] = [(Gray.BLOCKED, "broker", None)]
    servers += [(fault, "database", None) for fault in _JOURNAL_FAULTS[options.db]]
    if options.links:
        return cycle(_named_cards(options.links))
    cards: list[tuple[Gray, str, Service | None]] = []
    for turn in range(len(LINK_FAULTS)):
        at_first = len(cards)
        order = _rotated(range(len(links)), turn)
        cards += [(LINK_FAULTS[(n + turn) % len(LINK_FAULTS)], *links[n]) for n in order]
        if servers:
            cards.insert(at_first + len(links) // 2, servers.pop(0))
    return cycle(cards)


def _named_cards(names: Sequence[str]) -> list[tuple[Gray, str, Service | None]]:
    """Return the faults of the links that were named: of each the one fault of its name, or all in turn."""
    cards: list[tuple[Gray, str, Service | None]] = []
    for fault in LINK_FAULTS:
        for name in names:
            kind, service, *only = name.split(":")
            if only in ([], [fault.value]):
                cards.append((fault, kind, Service(service)))
    return cards


def _rotated(numbers: Sequence[int], by: int) -> list[int]:
    return [*numbers[by % len(numbers) :], *numbers[: by % len(numbers)]]
