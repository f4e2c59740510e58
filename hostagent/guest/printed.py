# SPDX-License-Identifier: Apache-2.0
"""Output of the tools that look inside a guest, read strictly. Pure. Raises GuestLookError for any other output."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bridge.core.reasons import Reason
from hostagent.guest.answers import bad, is_device
from hostagent.guest.errors import GuestLookError

_SIZE_MAX: Final = 2**63 - 1
_ROWS_MAX: Final = 4096
_NAME: Final = re.compile(r"[A-Za-z0-9+_.][A-Za-z0-9+_.-]{0,127}")  # of a volume group or logical volume
_EXT_BLOCKS_MAX: Final = 2**32 - 1  # without the feature 64bit
_LINE_MAX: Final = 1024  # characters of a line with a size; a longer line is left out
_DEVID: Final = re.compile(r"devid\s+(\d{1,9}) size (\d{1,18}) used \d{1,18} path (\S+)")
_XFS_DATA: Final = re.compile(r"data\s.*?\bbsize=(\d{1,7})\s+blocks=(\d{1,18}),.*")
_OCTAL: Final = re.compile(r"\\([0-7]{3})")
_SECTORS: Final = frozenset({512, 4096})


@dataclass(frozen=True, slots=True, kw_only=True)
class TablePartition:
    """One partition of a table; `start` and `end` in bytes."""

    device: str
    number: int
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionTable:
    """A disk's partition table; `kind` is gpt or dos."""

    kind: str
    partitions: tuple[TablePartition, ...]

    @property
    def last(self) -> TablePartition | None:
        """Return the partition that ends last."""
        return max(self.partitions, key=lambda partition: partition.end, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One row of mountinfo."""

    mount_point: str
    kind: str
    writable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LogicalVolume:
    """The only logical volume of a group, and the physical volume on the disk; sizes in bytes.

    `volumes`: logical volumes in the group. `device` and `used`: the physical volume's device, and its part in use
    by LVM, the metadata before it included; `free`: not given to a logical volume yet.
    """

    group: str
    name: str
    layout: str
    minor: int
    volumes: int
    extent: int
    device: int
    used: int
    free: int


def read_table(out: str, disk: str) -> PartitionTable:
    """Return the table that `sfdisk --json` printed."""
    table = _json(out).get("partitiontable")
    if not isinstance(table, Mapping) or table.get("device") != disk or table.get("unit") != "sectors":
        raise GuestLookError(Reason.FS_TABLE)
    kind, sector, rows = table.get("label"), table.get("sectorsize", 512), table.get("partitions", [])
    if kind not in {"gpt", "dos"} or sector not in _SECTORS or not isinstance(rows, list):
        raise GuestLookError(Reason.FS_TABLE, str(kind)[:20])
    if len(rows) > _ROWS_MAX:
        raise GuestLookError(Reason.FS_TABLE, f"{len(rows)} partitions")
    return PartitionTable(kind=kind, partitions=tuple(_partition(row, disk, sector) for row in rows))


def read_mounts(out: str) -> tuple[Mount, ...]:
    """Read /proc/self/mountinfo; rows that are not mounts are left out."""
    return tuple(mount for mount in map(_mount, out.splitlines()[:_ROWS_MAX]) if mount is not None)


def read_swaps(out: str) -> frozenset[str]:
    """Read the devices of /proc/swaps."""
    return frozenset(line.split()[0] for line in out.splitlines()[1:_ROWS_MAX] if line.startswith("/dev/"))


def read_sectors(out: str) -> int:
    """Read a size of sysfs, in sectors of 512 bytes; return bytes."""
    text = out.strip()
    if not text.isascii() or not text.isdigit() or len(text) > len(str(_SIZE_MAX)) or int(text) * 512 > _SIZE_MAX:
        raise bad("a size of sysfs that is not a number")
    return int(text) * 512


def read_logical_volume(volumes: str, physical: str, device: str, minor: int) -> LogicalVolume:
    """Read `lvs` and `pvs` in their JSON form: the logical volume of dm-`minor` on a physical volume."""
    row = _only(_report(volumes, "lv"), "lv_kernel_minor", str(minor))
    place = _only(_report(physical, "pv"), "pv_name", device)
    group, name, layout = row.get("vg_name"), row.get("lv_name"), row.get("lv_layout")
    if not _is_name(group) or not _is_name(name) or not isinstance(layout, str) or place.get("vg_name") != group:
        raise GuestLookError(Reason.FS_LAYOUT, "lvs and pvs do not agree")
    return LogicalVolume(
        group=str(group),
        name=str(name),
        layout=layout[:64],
        minor=minor,
        volumes=_number(row, "lv_count"),
        extent=_number(row, "vg_extent_size"),
        device=_number(place, "dev_size"),
        used=_number(place, "pe_start") + _number(place, "pv_size"),
        free=_number(place, "pv_free"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Covered:
    """The part of its device that a file system covers, in bytes.

    `most`: bytes that its format can address, None without such a limit. `faulty`: it is marked as such.
    `device_number`: btrfs' number of the device, "" for others.
    """

    size: int
    most: int | None = None
    faulty: bool = False
    device_number: str = ""


def read_covered(kind: str, out: str, device: str) -> Covered:
    """Return how much of its device a file system covers, as its own tool shows it."""
    match kind:
        case "ext2" | "ext3" | "ext4":
            block, features = _number_of("Block size", out), _field("Filesystem features", out).split()
            return Covered(
                size=_number_of("Block count", out) * block,
                most=None if "64bit" in features else _EXT_BLOCKS_MAX * block,
                faulty="with errors" in _field("Filesystem state", out),
            )
        case "xfs":
            lines = (line for line in out.splitlines() if len(line) <= _LINE_MAX)
            data = next(filter(None, map(_XFS_DATA.fullmatch, lines)), None)
            if data is None:
                raise bad("xfs_info: no size")
            return Covered(size=int(data[1]) * int(data[2]))
        case _:
            lines = (line.strip() for line in out.splitlines() if len(line) <= _LINE_MAX)
            rows = [found.groups() for found in map(_DEVID.fullmatch, lines) if found is not None]
            if len(rows) != 1 or "missing" in out.lower():
                raise GuestLookError(Reason.FS_LAYOUT, f"btrfs on {len(rows)} devices")
            if rows[0][2] != device and not rows[0][2].startswith("/dev/"):
                raise bad("btrfs: no device")
            return Covered(size=int(rows[0][1]), device_number=rows[0][0])


def _json(out: str) -> Mapping[str, Any]:
    try:
        value = json.loads(out)
    except (ValueError, RecursionError) as ex:
        raise bad(f"output that is not JSON ({type(ex).__name__})") from ex
    if not isinstance(value, Mapping):
        raise bad("output that is not an object")
    return value


def _partition(row: Any, disk: str, sector: int) -> TablePartition:
    device = row.get("node") if isinstance(row, Mapping) else None
    if not is_device(device) or not str(device).startswith(disk):
        raise GuestLookError(Reason.FS_TABLE, "a partition without a device")
    number = re.fullmatch(r"p?([1-9]\d{0,2})", str(device).removeprefix(disk))
    start, size = row.get("start"), row.get("size")
    if number is None or not _is_size(start) or not _is_size(size) or (start + size) * sector > _SIZE_MAX:
        raise GuestLookError(Reason.FS_TABLE, "a partition without a start")
    return TablePartition(
        device=str(device), number=int(number[1]), start=start * sector, end=(start + size) * sector
    )


def _mount(line: str) -> Mount | None:
    before, separator, after = line.partition(" - ")
    fields, rest = before.split(), after.split()
    if not separator or len(fields) < 6 or len(rest) < 3:  # noqa: PLR2004 - proc(5)
        return None
    options = {*fields[5].split(","), *rest[2].split(",")}
    return Mount(
        mount_point=_OCTAL.sub(lambda found: chr(int(found[1], 8)), fields[4]),
        kind=rest[0],
        writable="ro" not in options,
    )


def _report(out: str, what: str) -> list[Mapping[str, Any]]:
    report = _json(out).get("report")
    rows = report[0].get(what) if isinstance(report, list) and report and isinstance(report[0], Mapping) else None
    if not isinstance(rows, list) or len(rows) > _ROWS_MAX:
        raise bad(f"{what}s: no report")
    return [row for row in rows if isinstance(row, Mapping)]


def _only(rows: list[Mapping[str, Any]], key: str, value: str) -> Mapping[str, Any]:
    found = [row for row in rows if row.get(key) == value]
    if len(found) != 1:
        raise GuestLookError(Reason.FS_LAYOUT, f"{len(found)} rows with {key} {value}")
    return found[0]


def _number(row: Mapping[str, Any], key: str) -> int:
    text = row.get(key)
    if not isinstance(text, str) or not text.isascii() or not text.isdigit() or len(text) > len(str(_SIZE_MAX)):
        raise bad(f"{key}: not a number")
    return int(text)


def _field(name: str, out: str) -> str:
    values = (line.partition(":")[2].strip() for line in out.splitlines() if line.startswith(f"{name}:"))
    return next(values, "")


def _number_of(name: str, out: str) -> int:
    value = _field(name, out)
    if not value.isascii() or not value.isdigit() or len(value) > len(str(_SIZE_MAX)):
        raise bad(f"dumpe2fs: {name} is not a number")
    return int(value)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _SIZE_MAX
