# SPDX-License-Identifier: Apache-2.0
"""The storage side: the kernel's own iSCSI target, set up through configfs, over loop devices that can grow."""

import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.lab.storage_vm.inside.commands import put, sh

_TARGET: Final = Path("/sys/kernel/config/target")
STATE: Final = Path("/run/eb")
ISCSI_PORT: Final = 3260
_OPEN_TO_ALL: Final = {
    "generate_node_acls": 1,
    "authentication": 0,
    "demo_mode_write_protect": 0,
    "cache_dynamic_acls": 1,
}


@dataclass(slots=True)
class Backing:
    """The array's disk: a loop device over a file in memory. `size` in bytes."""

    name: str
    size: int
    device: str = field(init=False)

    def __post_init__(self) -> None:
        with self._file.open("wb") as file:
            file.truncate(self.size)
        self.device = sh("losetup", "--find", "--show", self._file)

    @property
    def _file(self) -> Path:
        return STATE / f"{self.name}.img"

    def grow(self, size: int) -> None:
        """What the array does on an extend."""
        with self._file.open("r+b") as file:
            file.truncate(size)
        sh("losetup", "--set-capacity", self.device)
        self.size = size


class IscsiTarget:
    """One target; each portal has a group of its own, as the controllers of an array have, each volume a LUN."""

    def __init__(self, name: str, portals: tuple[str, ...]) -> None:
        self.iqn = f"iqn.2010-10.org.openstack:{name}"
        self.portals = tuple(f"{address}:{ISCSI_PORT}" for address in portals)
        self._luns = 0
        self._groups = [_TARGET / "iscsi" / self.iqn / f"tpgt_{number + 1}" for number in range(len(portals))]
        for group, portal in zip(self._groups, self.portals, strict=True):
            group.mkdir(parents=True)
            (group / "np" / portal).mkdir()
            for attribute, value in _OPEN_TO_ALL.items():
                put(group / "attrib" / attribute, value)
            put(group / "enable", 1)

    def add(self, name: str, size: int, *, apart: bool = False) -> "IscsiVolume":
        """A new LUN; `apart`: with a disk of its own behind each portal, which an array may grow one by one."""
        lun, self._luns = self._luns, self._luns + 1
        serial = uuid.uuid4()
        backings: list[Backing] = []
        for number, group in enumerate(self._groups):
            if apart or not backings:
                core = iblock(f"{name}{number}", serial, Backing(f"{name}{number}", size))
                backings.append(core[1])
            where = group / "lun" / f"lun_{lun}"
            where.mkdir()
            (where / name).symlink_to(core[0])
        return IscsiVolume(target=self, lun=lun, backings=backings)

    def reuse(self, old: "IscsiVolume", new: "IscsiVolume", *, portals: slice) -> None:
        """Give the LUN number of one volume to another behind some portals, without a word to any host."""
        for group in self._groups[portals]:
            where, source = group / "lun" / f"lun_{old.lun}", group / "lun" / f"lun_{new.lun}"
            next(path for path in where.iterdir() if path.is_symlink()).unlink()
            other = next(path for path in source.iterdir() if path.is_symlink())
            (where / other.name).symlink_to(other.resolve())

    def portal(self, index: int, *, up: bool) -> None:
        """Drop a portal's sessions and refuse new ones, or take them again."""
        put(self._groups[index] / "enable", int(up))


def iblock(name: str, serial: uuid.UUID, backing: Backing) -> tuple[Path, Backing]:
    """Make LIO's storage object for a loop device; both."""
    core = _TARGET / "core" / "iblock_0" / name
    core.mkdir(parents=True)
    put(core / "control", f"udev_path={backing.device}")
    put(core / "enable", 1)
    put(core / "wwn" / "vpd_unit_serial", serial)
    return core, backing


@dataclass(slots=True, kw_only=True)
class IscsiVolume:
    """A LUN and what Cinder would say of it."""

    target: IscsiTarget
    lun: int
    backings: list[Backing]
    volume_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def size(self) -> int:
        """In bytes."""
        return self.backings[0].size

    def grow(self, size: int) -> None:
        """See Backing."""
        for backing in self.backings:
            backing.grow(size)

    @property
    def connection(self) -> dict[str, Any]:
        """As cinder/volume/targets/iscsi.py: _get_iscsi_properties."""
        portals = self.target.portals
        data: dict[str, Any] = {
            "target_discovered": False,
            "target_portal": portals[0],
            "target_iqn": self.target.iqn,
            "target_lun": self.lun,
            "volume_id": self.volume_id,
            "access_mode": "rw",
            "discard": True,
        }
        if len(portals) > 1:
            data |= {
                "target_portals": list(portals),
                "target_iqns": [self.target.iqn] * len(portals),
                "target_luns": [self.lun] * len(portals),
            }
        return {"driver_volume_type": "iscsi", "data": data}
