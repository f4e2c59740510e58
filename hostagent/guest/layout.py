# SPDX-License-Identifier: Apache-2.0
"""The place of a volume in its guest: the disk found by serial, what lies on it, and whether it can follow. Pure.

A guest sees the first 20 characters of a volume's id (virtio-blk), or all of it behind a vendor's name (SCSI).
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from bridge.core.file_systems import Follow, FsLayout
from bridge.core.reasons import Reason
from hostagent.guest.answers import GuestDisk, GuestFileSystem
from hostagent.guest.errors import GuestLookError

_SERIAL_LEAST: Final = 20
_VENDORS: Final = ("0QEMU_QEMU_HARDDISK_", "0QEMU_QEMU_CD-ROM_")
"""Beginnings of udev's ID_SERIAL of QEMU's SCSI disks."""
FLOORS: Final = {"ext2": 0.80, "ext3": 0.80, "ext4": 0.80, "xfs": 0.90, "btrfs": 0.45}
"""Part of its device that a file system of this type shows at least as its size, once it covers all of it.

ext keeps 5 % for root and up to 7 % for inodes; the agent leaves both out. btrfs may keep each block twice.
"""
_FIXED: Final = {"xfs": 96 * 1024 * 1024}
"""Bytes that a file system of this type keeps for itself on a disk of any size: the log of xfs."""
SLACK: Final = 16 * 1024 * 1024  # bytes at the end of a device that a file system may leave unused


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskTree:
    """A volume's disk in its guest and the devices made of it. `partitions` lie on the disk itself."""

    disk: str
    partitions: tuple[str, ...]
    devices: frozenset[str]
    file_systems: tuple[GuestFileSystem, ...]

    @property
    def layout(self) -> FsLayout:
        """Return the kind of layout, as far as the agent shows it."""
        if not self.file_systems:
            return FsLayout.NONE
        if len(self.partitions) > 1:
            return FsLayout.SEVERAL
        base = self.partitions[0] if self.partitions else self.disk
        if any(each.device != base for each in self.file_systems):
            return FsLayout.MAPPED
        return FsLayout.PARTITION if self.partitions else FsLayout.DISK

    @property
    def size(self) -> int | None:
        """Return the bytes of all its file systems, each device once; None where one does not say."""
        totals = {each.device: each.total for each in self.file_systems}
        known = [total for total in totals.values() if total is not None]
        return sum(known) if len(known) == len(totals) and known else None


def matches(serial: str | None, volume_id: str) -> bool:
    """Return whether a disk's serial names the volume: its id, or at least the first 20 characters of it."""
    if serial is None:
        return False
    for vendor in _VENDORS:
        serial = serial.removeprefix(vendor)
    return len(serial) >= _SERIAL_LEAST and volume_id.startswith(serial.lower())


def find_disk(disks: Sequence[GuestDisk], volume_id: str, volume_ids: Collection[str]) -> GuestDisk:
    """Return the guest's disk of a volume. `volume_ids`: all volumes of this server.

    Raises GuestLookError where no disk has the serial, several have, or the serial fits another volume as well.
    """
    mine = [disk for disk in disks if not disk.partition and not disk.beneath and matches(disk.serial, volume_id)]
    if not mine:
        raise GuestLookError(Reason.FS_DISK_NOT_FOUND)
    if len(mine) > 1:
        raise GuestLookError(Reason.FS_SERIAL_AMBIGUOUS, ", ".join(disk.device for disk in mine))
    if any(matches(mine[0].serial, other) for other in volume_ids if other != volume_id):
        raise GuestLookError(Reason.FS_SERIAL_AMBIGUOUS, "another volume of this server begins with the same id")
    return mine[0]


def tree_of(disk: GuestDisk, disks: Sequence[GuestDisk], file_systems: Sequence[GuestFileSystem]) -> DiskTree:
    """Return the disk with all that lies on it, through any number of layers."""
    above: dict[str, list[str]] = {}
    for each in disks:
        for beneath in each.beneath:
            above.setdefault(beneath, []).append(each.device)
    devices, waiting = {disk.device}, [disk.device]
    while waiting:  # each device once: a guest may say that thousands lie on one another
        more = set(above.get(waiting.pop(), ())) - devices
        devices |= more
        waiting += more
    return DiskTree(
        disk=disk.device,
        partitions=tuple(d.device for d in disks if d.partition and disk.device in d.beneath),
        devices=frozenset(devices),
        file_systems=tuple(each for each in file_systems if each.device in devices),
    )


def on_top_of(device: str, disks: Sequence[GuestDisk]) -> Iterator[GuestDisk]:
    """Yield the devices made directly of a device, without its partitions."""
    yield from (disk for disk in disks if device in disk.beneath and not disk.partition)


def is_behind(tree: DiskTree, disk_size: int) -> bool | None:
    """Return whether the file systems leave more of the disk unused than their types need; None if unknown."""
    size = tree.size
    if size is None:
        return None
    floor = min((FLOORS.get(each.kind, 0.80) for each in tree.file_systems), default=0.80)
    kept = max((_FIXED.get(each.kind, 0) for each in tree.file_systems), default=0)
    return disk_size - size > SLACK + kept and size < floor * disk_size


def stayed_behind(before: tuple[int, int], now: tuple[int, int], floor: float) -> bool:
    """Return whether a disk grew and its file systems did not follow; each pair: (disk, file systems), in bytes."""
    grown = now[0] - before[0]
    return grown > SLACK and now[1] - before[1] < floor * grown


def can_follow(tree: DiskTree) -> tuple[Follow, Reason]:
    """Return whether the file system can grow, by what the agent shows without a command."""
    if not tree.file_systems:
        return Follow.NO, Reason.FS_NOT_MOUNTED
    unknown = [each.kind for each in tree.file_systems if each.kind not in FLOORS]
    match tree.layout:
        case FsLayout.SEVERAL:
            return Follow.UNKNOWN, Reason.FS_SEVERAL_PARTITIONS
        case FsLayout.MAPPED:
            return Follow.UNKNOWN, Reason.FS_LAYERS
        case _ if unknown:
            return Follow.NO, Reason.FS_TYPE
        case _:
            return Follow.YES, Reason.FS_CAN_FOLLOW
