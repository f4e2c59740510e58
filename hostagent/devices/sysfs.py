# SPDX-License-Identifier: Apache-2.0
"""Facts from sysfs about a block device and the devices under it. Needs neither root nor an open device."""

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hostagent.ports import Nudge

SYS: Final = Path("/sys")
_UNIT: Final = 512  # what */size counts in, whatever the device's own sector size
_DIGITS: Final = 20  # a size of more digits is no size
_CONTROLLER: Final = re.compile(r"nvme\d+")
_LUKS_UUID: Final = re.compile(r"CRYPT-LUKS[12]-([0-9a-f]{32})-")
_NOT_SET: Final = re.compile(r"[0 -]*")
_UP: Final = frozenset({"", "running", "live"})
"""States in which a path works; devices without paths have none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CryptMap:
    """A dm-crypt map: its name below /dev/mapper, LUKS1, LUKS2, PLAIN or another kind, the device it decrypts."""

    number: str
    name: str
    kind: str
    beneath: str


def device_number(path: str) -> str | None:
    """Return `major:minor` behind a path, links followed; None where there is no block device."""
    try:
        status = os.stat(path)  # noqa: PTH116 - st_rdev
    except OSError:
        return None
    if not stat.S_ISBLK(status.st_mode):
        return None
    return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"


def beneath(number: str, root: Path = SYS) -> frozenset[str]:
    """Return the device and those it is stacked on (the paths of a multipath map), as `major:minor`."""
    found: set[str] = set()
    todo = [number]
    while todo:
        current = todo.pop()
        if current in found:
            continue
        found.add(current)
        todo.extend(filter(None, (text(slave / "dev") for slave in _slaves(current, root))))
    return frozenset(found)


def is_crypt(number: str, root: Path = SYS) -> bool:
    """Return whether the device is a dm-crypt map, which does not grow with the device beneath it."""
    return text(_device(number, root) / "dm" / "uuid").startswith("CRYPT-")


def crypt_map(number: str, root: Path = SYS) -> CryptMap | None:
    """Return the dm-crypt map of this number, None for another device or one on several devices.

    Its uuid is CRYPT-KIND-UUID-NAME (cryptsetup: lib/libdevmapper.c, dm_prepare_uuid).
    """
    device, slaves = _device(number, root), _slaves(number, root)
    if not is_crypt(number, root) or len(slaves) != 1:
        return None
    return CryptMap(
        number=number,
        name=text(device / "dm" / "name"),
        kind=text(device / "dm" / "uuid").split("-")[1],
        beneath=f"/dev/{_name(slaves[0])}",
    )


def is_multipath(number: str, root: Path = SYS) -> bool:
    """Return whether the device is a map of multipathd, whatever its name."""
    return text(_device(number, root) / "dm" / "uuid").startswith("mpath-")


def size(number: str, root: Path = SYS) -> int | None:
    """Return the bytes that are there on every path: of a multipath map no more than its smallest path has.

    None where the kernel does not say.
    """
    sizes = [_size(directory) for directory in (_device(number, root), *_paths(number, root))]
    known = [found for found in sizes if found is not None]
    return min(known) if len(known) == len(sizes) else None


def uneven(number: str, root: Path = SYS) -> str:
    """Return the sizes in a multipath map that differ, as `dm-0 64, sda 128, sdb 128`; empty where all agree."""
    if not is_multipath(number, root):
        return ""
    sizes = {_name(path): _size(path) for path in (_device(number, root), *_paths(number, root))}
    return (
        ", ".join(f"{name} {size}" for name, size in sorted(sizes.items())) if len(set(sizes.values())) > 1 else ""
    )


def paths_down(number: str, root: Path = SYS) -> tuple[str, ...]:
    """Return the paths (of a plain disk: itself) that the kernel does not call working, as `sdb (offline)`.

    Of an NVMe device with several controllers one that lives is enough: the kernel itself fails over. A multipath
    map without any path is down as a whole: one that queues holds every read until a path comes back.
    """
    paths = _paths(number, root)
    if not paths:
        return (f"{_name(_device(number, root))} (a map without paths)",)
    down = []
    for path in paths:
        states = _states(path, root)
        if "live" not in states.values():
            down += [f"{name} ({state})" for name, state in states.items() if state not in _UP]
    return tuple(sorted(down))


def nudge(number: str, root: Path = SYS) -> Nudge:
    """Return the devices to rescan; empty for those that grow by themselves: LVM, loop and the like."""
    paths = _paths(number, root)
    return Nudge(
        scsi=tuple(sorted(_name(path) for path in paths if (path / "device" / "rescan").exists())),
        nvme=tuple(sorted({name for path in paths for name in _controllers(path)})),
        map=_name(_device(number, root)) if is_multipath(number, root) else None,
    )


def answering(number: str, root: Path = SYS) -> Nudge:
    """Return the disks and controllers of `nudge` that the kernel calls working, without a map."""
    up = {name for path in _paths(number, root) for name, state in _states(path, root).items() if state in _UP}
    every = nudge(number, root)
    return Nudge(scsi=tuple(filter(up.__contains__, every.scsi)), nvme=tuple(filter(up.__contains__, every.nvme)))


def _states(path: Path, root: Path) -> dict[str, str]:
    """Return the kernel's state of a path, by its name; of an NVMe namespace that of each of its controllers."""
    if names := _controllers(path):
        return {name: text(root / "class" / "nvme" / name / "state") for name in names}
    return {_name(path): text(path / "device" / "state")}


def wwids(number: str, root: Path = SYS) -> dict[str, str]:
    """Return the worldwide name of each path, by kernel name, as of the last rescan."""
    found = {_name(path): text(path / "device" / "wwid") or text(path / "wwid") for path in _paths(number, root)}
    return {name: wwid for name, wwid in found.items() if wwid}


def worldwide_names(number: str, root: Path = SYS) -> frozenset[str]:
    """Return the names that the storage gives a device, as `kind value`; empty for a loop device and the like.

    Of a multipath map those of its paths, of a dm-crypt map that of its header and those beneath, of an LVM volume
    its own: LVM moves volumes between disks.
    """
    device = _device(number, root)
    map_uuid = text(device / "dm" / "uuid")
    if map_uuid.startswith("LVM-"):
        return frozenset({f"lvm {map_uuid.removeprefix('LVM-')}"})
    names = {f"luks {found[1]}"} if (found := _LUKS_UUID.match(map_uuid)) else set()
    slaves = _slaves(number, root)
    for slave in slaves:
        if below := text(slave / "dev"):
            names |= worldwide_names(below, root)
    return frozenset(names if slaves else names_of(device))


def leaves(number: str, root: Path = SYS) -> list[Path]:
    """Return the devices at the bottom of a stack: the paths of a map, else the device itself."""
    slaves = _slaves(number, root)
    if not slaves:
        return [_device(number, root)]
    below = (text(slave / "dev") for slave in slaves)
    return [leaf for number_below in below if number_below for leaf in leaves(number_below, root)]


def names_of(device: Path) -> set[str]:
    """Return the worldwide names of a SCSI disk or an NVMe namespace by its directory, as `kind value`."""
    if not _controllers(device):
        name = " ".join((text(device / "device" / "wwid") or text(device / "wwid")).split())
        return {f"scsi {name}"} if name else set()
    told = {kind: text(device / kind).lower() for kind in ("uuid", "nguid", "eui")}
    names = {f"nvme-{kind} {name}" for kind, name in told.items() if not _NOT_SET.fullmatch(name)}
    if not names and (name := " ".join(text(device / "wwid").split())):
        names = {f"nvme-wwid {name}"}  # made of vendor, serial, model and namespace id
    return names


def nvme_identities(number: str, root: Path = SYS) -> dict[str, dict[str, str]]:
    """Return `nqn`, `nsid`, `uuid` of the NVMe namespace, or of each path of a map, by kernel name, in lower case.

    Without what the kernel does not tell; empty for other devices.
    """
    return {_name(path): found for path in _paths(number, root) if (found := nvme_identity(path))}


def nvme_identity(device: Path) -> dict[str, str]:
    """Return the same of one namespace by its directory."""
    if not _controllers(device):
        return {}
    found = {"nqn": device / "device" / "subsysnqn", "nsid": device / "nsid", "uuid": device / "uuid"}
    return {key: value.lower() for key, path in found.items() if (value := text(path))}


def _paths(number: str, root: Path) -> list[Path]:
    """Return the paths of a multipath map, of another device the device itself."""
    return _slaves(number, root) if is_multipath(number, root) else [_device(number, root)]


def _controllers(path: Path) -> list[str]:
    """Return the NVMe controllers of a namespace: one, or with native multipath those of the subsystem."""
    device = (path / "device").resolve()
    if _CONTROLLER.fullmatch(device.name):
        return [device.name]
    try:
        return (
            sorted(c.name for c in device.iterdir() if _CONTROLLER.fullmatch(c.name))
            if _is_subsystem(device)
            else []
        )
    except OSError:
        return []


def _is_subsystem(device: Path) -> bool:
    return device.name.startswith("nvme-subsys")


def _name(path: Path) -> str:
    return path.resolve().name


def _size(path: Path) -> int | None:
    sectors = text(path / "size")
    return int(sectors) * _UNIT if sectors.isdecimal() and len(sectors) < _DIGITS else None


def _device(number: str, root: Path) -> Path:
    return root / "dev" / "block" / number


def _slaves(number: str, root: Path) -> list[Path]:
    try:
        return list((_device(number, root) / "slaves").iterdir())
    except OSError:
        return []


def text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
