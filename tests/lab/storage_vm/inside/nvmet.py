# SPDX-License-Identifier: Apache-2.0
"""The kernel's own NVMe target, over TCP; rdma.py has it over RDMA."""

import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.lab.storage_vm.inside.commands import put
from tests.lab.storage_vm.inside.targets import Backing

_NVMET: Final = Path("/sys/kernel/config/nvmet")
_PORT: Final = 4420


class NvmeTarget:
    """One subsystem on a port of each portal; each volume is a namespace."""

    transport = "tcp"
    first_port = 0  # numbers of the kernel's ports, which are one list for all transports

    def __init__(self, name: str, portals: tuple[str, ...] = ("127.0.0.1",)) -> None:
        self.nqn = f"nqn.2014-08.org.openstack:{name}"
        self._subsystem = _NVMET / "subsystems" / self.nqn
        self._subsystem.mkdir()
        put(self._subsystem / "attr_allow_any_host", 1)
        self.portals = portals
        for address in portals:
            self._open(address)

    def _open(self, address: str) -> None:
        port = self._port(address)
        if not port.exists():
            port.mkdir()
            of = {"adrfam": "ipv4", "trtype": self.transport, "traddr": address, "trsvcid": _PORT}
            for key, value in of.items():
                put(port / f"addr_{key}", value)
        (port / "subsystems" / self.nqn).symlink_to(self._subsystem)

    def portal(self, address: str, *, up: bool) -> None:
        """Take the subsystem off a portal, its connections with it, or put it back."""
        if up:
            self._open(address)
        else:
            (self._port(address) / "subsystems" / self.nqn).unlink()

    def reuse(self, old: "NvmeVolume", new: "NvmeVolume") -> None:
        """Give the namespace id of one volume to another: its device and its names."""
        for put_away in (old, new):
            put(put_away.namespace / "enable", 0)
        put(old.namespace / "device_path", new.backing.device)
        put(old.namespace / "device_uuid", new.uuid)
        put(old.namespace / "enable", 1)

    def _port(self, address: str) -> Path:
        return _NVMET / "ports" / str(self.first_port + int(address.rpartition(".")[2]))

    def add(self, ns_id: int, size: int) -> "NvmeVolume":
        """A new namespace."""
        volume = NvmeVolume(nqn=self.nqn, portals=self.portals, ns_id=ns_id, backing=Backing(f"nvme{ns_id}", size))
        namespace = volume.namespace = self._subsystem / "namespaces" / str(ns_id)
        namespace.mkdir()
        put(namespace / "device_path", volume.backing.device)
        put(namespace / "device_uuid", volume.uuid)
        put(namespace / "enable", 1)
        return volume


@dataclass(slots=True, kw_only=True)
class NvmeVolume:
    """A namespace and both ways in which Cinder tells of it."""

    nqn: str
    portals: tuple[str, ...]
    ns_id: int
    backing: Backing
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    volume_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    namespace: Path = Path()

    def grow(self, size: int) -> None:
        """The array does it; the target looks at its device again."""
        self.backing.grow(size)
        put(self.namespace / "revalidate_size", 1)

    @property
    def connection(self) -> dict[str, Any]:
        """As cinder/volume/targets/nvmeof.py: version 1 of the properties. JSON has `ns_id` as a number."""
        data = {
            "target_portal": self.portals[0],
            "target_port": str(_PORT),
            "nqn": self.nqn,
            "transport_type": "tcp",
            "ns_id": self.ns_id,
            "volume_id": self.volume_id,
            "access_mode": "rw",
        }
        return {"driver_volume_type": "nvmeof", "data": data}

    def as_v2(self) -> "NvmeVolumeV2":
        """The same volume of a backend that speaks version 2."""
        return NvmeVolumeV2(self)

    @property
    def connection_v2(self) -> dict[str, Any]:
        """Version 2."""
        data = {
            "target_nqn": self.nqn,
            "vol_uuid": self.uuid,
            "portals": [[address, str(_PORT), "tcp"] for address in self.portals],
            "ns_id": self.ns_id,
            "volume_id": self.volume_id,
            "access_mode": "rw",
        }
        return {"driver_volume_type": "nvmeof", "data": data}


class NvmeVolumeV2:
    """A volume whose connection data are of version 2."""

    def __init__(self, volume: NvmeVolume) -> None:
        self.volume_id = volume.volume_id
        self.connection = volume.connection_v2
        self.grow = volume.grow
