# SPDX-License-Identifier: Apache-2.0
"""Cinder's side beside every disk: what the last line says. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass

from tests.chaos.ledger import Disk, DiskId


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """All there is to judge by. `told`: disks of volumes whose growth the broker has confirmed."""

    wanted: Mapping[DiskId, int]
    disks: Mapping[DiskId, Disk]
    told: Collection[DiskId]
    open: Collection[DiskId]
    waiting: int  # messages in queues that end in an extend
    to_lanes: int  # unreadable and bad messages the broker has confirmed
    in_lanes: int  # messages that were seen in the parked and unreadable lanes


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The disks by what is wrong with them; `vanished` messages belong into a lane and are in none."""

    lost: tuple[DiskId, ...]
    shrunk: tuple[DiskId, ...]
    stuck: tuple[DiskId, ...]
    vanished: int

    @property
    def clean(self) -> bool:
        """Nothing is wrong."""
        return not (self.lost or self.shrunk or self.stuck or self.vanished)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The numbers of the last line."""

    lost: int
    shrunk: int
    stuck: int
    parked: int
    duplicates: int
    recovered_in: float
    blind: float | None = None  # seconds, with --gray
    restarts: int = 0

    def __str__(self) -> str:
        if self.blind is not None:
            return (
                f"lost {self.lost} shrunk {self.shrunk} stuck {self.stuck} blind {self.blind:.0f} s "
                f"parked {self.parked} duplicates {self.duplicates} restarts {self.restarts} "
                f"recovered_in {self.recovered_in:.1f} s"
            )
        return (
            f"lost {self.lost} shrunk {self.shrunk} stuck {self.stuck} parked {self.parked} "
            f"duplicates {self.duplicates} recovered_in {self.recovered_in:.1f} s"
        )

    def to_json(self) -> dict[str, object]:
        """The same as JSON."""
        return asdict(self)


def behind(seen: Seen) -> set[DiskId]:
    """Disks that are smaller than the volume Cinder told of."""
    return {disk for disk in seen.told if seen.disks[disk].size < seen.wanted[disk]}


def judge(seen: Seen) -> Verdict:
    """What is wrong. A disk is lost when nothing anywhere would bring it up; an extend that is open for a disk that
    is up, is stuck as well: it should have been closed."""
    late = behind(seen)
    held = {disk for disk in late if disk in seen.open or seen.waiting}
    return Verdict(
        lost=tuple(sorted(late - held)),
        shrunk=tuple(sorted(disk for disk, it in seen.disks.items() if it.shrunk)),
        stuck=tuple(sorted(held | set(seen.open))),
        vanished=max(0, seen.to_lanes - seen.in_lanes),
    )
