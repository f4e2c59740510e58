# SPDX-License-Identifier: Apache-2.0
"""The decision to grow: refuse before anything is touched, or the commands in their order. Pure.

Every command does nothing where its work is done already, so a growth that was cut off is completed by the next.
"""

from dataclasses import dataclass
from typing import Final

from bridge.core.reasons import Reason
from hostagent.guest.layout import FLOORS, SLACK
from hostagent.guest.printed import Covered, LogicalVolume, PartitionTable

EXT: Final = frozenset({"ext2", "ext3", "ext4"})
_TABLE_SLACK: Final = 2 * 1024 * 1024  # room behind a partition that is not worth writing its table
_LVM_SLACK: Final = 1024 * 1024  # of a second metadata area, at the end of a physical volume
_MBR_MOST: Final = (2**32 - 1) * 512
_PRIMARY_MOST: Final = 4

Argv = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowFacts:
    """A volume inside its guest, looked at and not touched. Sizes in bytes.

    `device`: the file system's own device, `room` its size now; `base`: the last partition, or the disk, with its
    size. `covered`: what the file system has of `device`.
    """

    disk: str
    disk_size: int
    table: PartitionTable | None
    base: str
    logical: LogicalVolume | None
    device: str
    room: int
    kind: str
    mount_point: str
    writable: bool
    covered: Covered

    @property
    def room_to_come(self) -> int:
        """Return the size of `device` when all below it has grown."""
        logical = self.logical
        unused = logical.device - logical.used + logical.free if logical is not None else 0
        return self.room + max(0, unused) + max(0, _room_behind_partition(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowRefusal:
    """The reason why a file system cannot follow its disk."""

    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowCommand:
    """One command of fixed words. `enlarges`: a device whose size must be larger after it."""

    name: str
    argv: Argv
    enlarges: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowPlan:
    """The commands in their order; none where the file system has the size of its disk."""

    commands: tuple[GrowCommand, ...]


def check_mount(kind: str, *, writable: bool) -> GrowRefusal | None:
    """Return why a mounted file system cannot grow, None if it can."""
    if kind not in FLOORS:
        return GrowRefusal(reason=Reason.FS_TYPE, detail=kind)
    return None if writable else GrowRefusal(reason=Reason.FS_READ_ONLY)


def check_table(table: PartitionTable, disk_size: int) -> GrowRefusal | None:
    """Return why the last partition cannot grow, None if it can."""
    last = table.last
    if last is None:
        return GrowRefusal(reason=Reason.FS_NOT_MOUNTED)
    if table.kind == "dos":
        if last.number > _PRIMARY_MOST:
            return GrowRefusal(reason=Reason.FS_LOGICAL_PARTITION, detail=last.device)
        if disk_size > _MBR_MOST:
            return GrowRefusal(reason=Reason.FS_MBR_LIMIT)
    return None


def check_logical(logical: LogicalVolume) -> GrowRefusal | None:
    """Return why a logical volume cannot grow, None if it can."""
    if logical.volumes != 1:
        return GrowRefusal(
            reason=Reason.FS_SEVERAL_VOLUMES, detail=f"{logical.volumes} logical volumes in {logical.group}"
        )
    if logical.layout != "linear":
        return GrowRefusal(reason=Reason.FS_LAYOUT, detail=f"{logical.group}/{logical.name} is {logical.layout}")
    return None


def check_covered(covered: Covered, room: int) -> GrowRefusal | None:
    """Return why a file system cannot cover a device of `room` bytes, None if it can."""
    if covered.faulty:
        return GrowRefusal(reason=Reason.FS_ERRORS)
    if covered.most is not None and room - covered.most >= SLACK:
        return GrowRefusal(reason=Reason.FS_SIZE_LIMIT, detail=f"{covered.most} bytes at most")
    return None


def plan_growth(facts: GrowFacts) -> GrowRefusal | GrowPlan:
    """Return the commands that bring the file system to its disk's size, or why there are none."""
    refusal = check_mount(facts.kind, writable=facts.writable)
    if refusal is None and facts.table is not None:
        refusal = check_table(facts.table, facts.disk_size)
    if refusal is None and facts.logical is not None:
        refusal = check_logical(facts.logical)
    if refusal is not None:
        return refusal
    commands: list[GrowCommand] = []
    behind_partition = _room_behind_partition(facts)
    if facts.table is not None and facts.table.last is not None and behind_partition >= _TABLE_SLACK:
        commands.append(
            GrowCommand(
                name="partition",
                argv=("growpart", facts.disk, str(facts.table.last.number)),
                enlarges=facts.table.last.device,
            )
        )
    if facts.logical is not None:
        room = facts.logical.device - facts.logical.used - _LVM_SLACK + (behind_partition if commands else 0)
        if room + facts.logical.free < facts.logical.extent:
            behind = facts.room - facts.covered.size >= SLACK
            if not behind:
                enough = room < SLACK
                return GrowPlan(commands=()) if enough else GrowRefusal(reason=Reason.FS_NO_FREE_EXTENTS)
            commands.clear()
        else:
            commands += _layers(facts.logical, facts.base, facts.device, room)
    if commands or facts.room - facts.covered.size >= SLACK:
        if (refusal := check_covered(facts.covered, facts.room_to_come)) is not None:
            return refusal
        commands.append(_file_system(facts))
    return GrowPlan(commands=tuple(commands))


def is_verified(kind: str, *, covered: int, room: int, before: int | None, after: int | None) -> bool:
    """Return whether the size read back shows the growth.

    `covered`: bytes that the file system had of its device; `room`: the device's bytes now. `before` and `after`:
    the size in the agent's words, which leaves out what the file system keeps for itself.
    """
    if before is None or after is None or room <= covered:
        return False
    return after > before and after - before >= FLOORS.get(kind, 1.0) * (room - covered) - SLACK


def _room_behind_partition(facts: GrowFacts) -> int:
    last = facts.table.last if facts.table is not None else None
    return facts.disk_size - last.end if last is not None else 0


def _layers(logical: LogicalVolume, base: str, device: str, room: int) -> list[GrowCommand]:
    commands = []
    if room >= logical.extent:
        commands.append(GrowCommand(name="physical_volume", argv=("pvresize", base)))
    extend = ("lvextend", "-l", "+100%FREE", f"{logical.group}/{logical.name}", base)
    commands.append(GrowCommand(name="logical_volume", argv=extend, enlarges=device))
    return commands


def _file_system(facts: GrowFacts) -> GrowCommand:
    match facts.kind:
        case "xfs":
            argv: Argv = ("xfs_growfs", facts.mount_point)
        case "btrfs":
            argv = ("btrfs", "filesystem", "resize", f"{facts.covered.device_number or '1'}:max", facts.mount_point)
        case _:
            argv = ("resize2fs", facts.device)
    return GrowCommand(name="file_system", argv=argv)


def covered_argv(kind: str, device: str, mount_point: str) -> Argv:
    """Return the command that shows how much of its device a file system has."""
    match kind:
        case "xfs":
            return ("xfs_info", mount_point)
        case "btrfs":
            return ("btrfs", "filesystem", "show", "--raw", mount_point)
        case _:
            return ("dumpe2fs", "-h", device)
