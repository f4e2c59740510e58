# SPDX-License-Identifier: Apache-2.0
"""Fibre Channel without adapters: FCoE (VN2VN) over pairs of virtual Ethernet cards, LIO's tcm_fc at the far end.

One pair is one fabric. The order of the steps is the kernel's: the mode before a port is enabled, the target before
the initiator, since the roles are told once.
"""

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.lab.storage_vm.inside.commands import put, sh
from tests.lab.storage_vm.inside.targets import Backing, iblock

_TARGETS: Final = Path("/sys/kernel/config/target/fc")
_FCOE: Final = Path("/sys/bus/fcoe")
_REMOTE: Final = Path("/sys/class/fc_remote_ports")
_MTU: Final = 2500
_UP_WITHIN: Final = 120.0

_NAME_OF_PATH: Final = """#!/bin/sh
numbers=$(basename "$(readlink -f "/sys/block/$1/device")")
port=$(cat "/sys/class/fc_transport/target${numbers%:*}/port_name")
echo "pci-virtual-fc-$port-lun-${numbers##*:}"
"""
_RULE: Final = (
    'ACTION!="remove", SUBSYSTEM=="block", KERNEL=="sd*", DEVPATH=="*/virtual/net/*/rport-*", '
    'PROGRAM="/run/fc-path-name %k", SYMLINK+="disk/by-path/%c"\n'
)
"""udev names the paths of cards on a PCI bus only; os-brick looks for this name where there is none."""


@dataclass(slots=True)
class _Port:
    """One end of a fabric."""

    card: str
    controller: Path
    host: Path

    @property
    def wwpn(self) -> str:
        return (self._attributes / "port_name").read_text().strip().removeprefix("0x")

    @property
    def online(self) -> bool:
        return (self._attributes / "port_state").read_text().strip() == "Online"

    @property
    def _attributes(self) -> Path:
        return self.host / "fc_host" / self.host.name


class FibreChannel:
    """A target with one port on each fabric; each volume is a LUN on all of them."""

    def __init__(self, fabrics: int, *, first: int = 0) -> None:
        """`first`: number of the first pair of cards, for a second target in the same machine."""
        sh("modprobe", "-a", "veth", "fcoe", "tcm_fc", "target_core_iblock", "sd_mod", "loop")
        _TARGETS.mkdir(exist_ok=True)
        _name_paths()
        self._pairs = [_fabric(first + number) for number in range(fabrics)]
        self._groups = [_group(initiator, target) for initiator, target in self._pairs]
        self._luns = 0

    def connect(self) -> None:
        """Enable every port and wait until each initiator sees its target."""
        for initiator, target in self._pairs:
            put(target.controller / "enabled", 1)
            put(initiator.controller / "enabled", 1)
        wanted = {target.wwpn for _initiator, target in self._pairs}
        began = time.monotonic()
        while not wanted <= {wwpn for wwpn, _port in _remote_targets()}:
            if time.monotonic() - began > _UP_WITHIN:
                raise RuntimeError(f"Fibre Channel: no target ports after {_UP_WITHIN:g} s")
            time.sleep(0.1)

    def add(self, name: str, size: int, *, apart: bool = False) -> "FcVolume":
        """A new LUN; `apart`: with a disk of its own on each fabric, which an array may grow one by one."""
        lun, self._luns = self._luns, self._luns + 1
        serial, core = uuid.uuid4(), Path()
        backings: list[Backing] = []
        for number in range(len(self._groups)):
            if apart or not backings:
                core, backing = iblock(f"{name}{number}", serial, Backing(f"{name}{number}", size))
                backings.append(backing)
            self._link(number, lun, core)
        return FcVolume(target=self, lun=lun, backings=backings)

    def reuse(self, old: "FcVolume", new: "FcVolume", *, fabrics: slice) -> None:
        """Give the LUN of one volume to another on some fabrics, without a word to any host."""
        for number in range(len(self._groups))[fabrics]:
            group, _acl = self._groups[number]
            core = _linked(group / "lun" / f"lun_{new.lun}").resolve()
            self._unlink(number, old.lun)
            self._link(number, old.lun, core)

    def cable(self, fabric: int, *, plugged: bool) -> None:
        """Pull the target's cable on one fabric, or put it back."""
        sh("ip", "link", "set", self._pairs[fabric][1].card, "up" if plugged else "down")

    def patience(self, fabric: int, *, fail: int, loss: int) -> None:
        """Seconds until I/O to a port that went fails, and until its disks are removed."""
        for wwpn, port in _remote_targets():
            if wwpn == self._pairs[fabric][1].wwpn:
                put(port / "dev_loss_tmo", loss)
                put(port / "fast_io_fail_tmo", fail)

    @property
    def wwpns(self) -> list[str]:
        """The target's ports."""
        return [target.wwpn for _initiator, target in self._pairs]

    def initiator_map(self) -> dict[str, list[str]]:
        """{initiator: [targets it is zoned with]}."""
        return {initiator.wwpn: [target.wwpn] for initiator, target in self._pairs}

    def _link(self, number: int, lun: int, core: Path) -> None:
        group, acl = self._groups[number]
        where, mapped = group / "lun" / f"lun_{lun}", acl / f"lun_{lun}"
        where.mkdir(exist_ok=True)
        (where / core.name).symlink_to(core)
        mapped.mkdir(exist_ok=True)
        (mapped / "map").symlink_to(where)

    def _unlink(self, number: int, lun: int) -> None:
        group, acl = self._groups[number]
        where, mapped = group / "lun" / f"lun_{lun}", acl / f"lun_{lun}"
        (mapped / "map").unlink()
        mapped.rmdir()
        _linked(where).unlink()
        where.rmdir()


@dataclass(slots=True, kw_only=True)
class FcVolume:
    """A LUN and what Cinder would say of it."""

    target: FibreChannel
    lun: int
    backings: list[Backing]
    volume_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def grow(self, size: int) -> None:
        """See Backing."""
        for backing in self.backings:
            backing.grow(size)

    @property
    def connection(self) -> dict[str, Any]:
        """As Cinder's Fibre Channel drivers: every port, one LUN number, the zone's map."""
        data = {
            "target_discovered": True,
            "target_lun": self.lun,
            "target_wwn": self.target.wwpns,
            "initiator_target_map": self.target.initiator_map(),
            "volume_id": self.volume_id,
            "access_mode": "rw",
            "discard": True,
        }
        return {"driver_volume_type": "fibre_channel", "data": data}


def _fabric(number: int) -> tuple[_Port, _Port]:
    ours, theirs = f"fci{number}", f"fct{number}"
    sh("ip", "link", "add", ours, "type", "veth", "peer", "name", theirs)
    return _port(ours), _port(theirs)


def _port(card: str) -> _Port:
    sh("ip", "link", "set", card, "mtu", str(_MTU), "promisc", "on", "up")
    put(_FCOE / "ctlr_create", card)
    controller = next(Path(f"/sys/class/net/{card}").resolve().glob("ctlr_*"))
    put(controller / "mode", "vn2vn")
    return _Port(card, controller, next(controller.glob("host*")))


def _group(initiator: _Port, target: _Port) -> tuple[Path, Path]:
    """The target's port group and the list of LUNs for its one initiator: tcm_fc has no open mode."""
    group = _TARGETS / _colons(target.wwpn) / "tpgt_1"
    group.mkdir(parents=True)
    acl = group / "acls" / _colons(initiator.wwpn)
    acl.mkdir()
    return group, acl


def _linked(lun: Path) -> Path:
    return next(path for path in lun.iterdir() if path.is_symlink())


def _colons(wwn: str) -> str:
    return ":".join(wwn[at : at + 2] for at in range(0, len(wwn), 2))


def _remote_targets() -> Iterator[tuple[str, Path]]:
    for port in _REMOTE.iterdir() if _REMOTE.is_dir() else ():
        if "Target" in (port / "roles").read_text():
            yield (port / "port_name").read_text().strip().removeprefix("0x"), port


def _name_paths() -> None:
    script, rule = Path("/run/fc-path-name"), Path("/run/udev/rules.d/99-fc.rules")
    script.write_text(_NAME_OF_PATH)
    script.chmod(0o755)
    rule.parent.mkdir(parents=True, exist_ok=True)
    rule.write_text(_RULE)
    sh("udevadm", "control", "--reload")
