# SPDX-License-Identifier: Apache-2.0
"""RDMA without adapters: Soft-RoCE over a dummy network card, and the kernel's iSER and NVMe targets on it."""

from pathlib import Path
from typing import Any, Final

from tests.lab.storage_vm.inside.commands import put, sh
from tests.lab.storage_vm.inside.compute import Attached
from tests.lab.storage_vm.inside.nvmet import NvmeTarget, NvmeVolume
from tests.lab.storage_vm.inside.targets import IscsiTarget, IscsiVolume

ADDRESSES: Final = ("10.9.0.1", "10.9.0.2")
_MTU: Final = 4200


def start() -> None:
    """Have one RDMA device with both addresses; calling it again changes nothing."""
    if Path("/sys/class/infiniband/rxe0").exists():
        return
    sh("modprobe", "-a", "dummy", "rdma_rxe", "rdma_cm", "rdma_ucm")
    sh("ip", "link", "add", "roce0", "type", "dummy")
    for address in ADDRESSES:
        sh("ip", "address", "add", f"{address}/24", "dev", "roce0")
    sh("ip", "link", "set", "roce0", "mtu", str(_MTU), "up")
    sh("rdma", "link", "add", "rxe0", "type", "rxe", "netdev", "roce0")


class IserTarget(IscsiTarget):
    """The iSCSI target with its portals switched to RDMA."""

    def __init__(self, name: str, portals: tuple[str, ...]) -> None:
        super().__init__(name, portals)
        for group, portal in zip(self._groups, self.portals, strict=True):
            put(group / "np" / portal / "iser", 1)


class IserVolume:
    """A LUN of such a target, as Cinder tells of it."""

    def __init__(self, volume: IscsiVolume) -> None:
        self.inner = volume
        self.volume_id = volume.volume_id

    def grow(self, size: int) -> None:
        """See Backing."""
        self.inner.grow(size)

    @property
    def connection(self) -> dict[str, Any]:
        """The data are those of iSCSI."""
        return {"driver_volume_type": "iser", "data": self.inner.connection["data"]}


def connect_iser(volume: IserVolume) -> Attached:
    """Connect as Nova's LibvirtISERVolumeDriver: os-brick's iSCSI connector with the transport iser."""
    from os_brick.initiator import connector  # noqa: PLC0415 - takes seconds, see compute.py

    brick = connector.InitiatorConnector.factory("ISCSI", "sudo", use_multipath=False, transport="iser")
    info = brick.connect_volume(dict(volume.connection["data"]))
    return Attached(volume_id=volume.volume_id, path=info["path"])


class RdmaTarget(NvmeTarget):
    """The NVMe target on RDMA ports."""

    transport = "rdma"
    first_port = 100


class RdmaVolume:
    """A namespace of such a target, in either form of its properties."""

    def __init__(self, volume: NvmeVolume, *, second_form: bool = False) -> None:
        self.inner = volume
        self.volume_id = volume.volume_id
        self._second_form = second_form

    def grow(self, size: int) -> None:
        """See NvmeVolume."""
        self.inner.grow(size)

    @property
    def connection(self) -> dict[str, Any]:
        """The first form names the transport `rdma`, the second `RoCEv2` in each portal."""
        if not self._second_form:
            data = {**self.inner.connection["data"], "transport_type": "rdma"}
        else:
            data = dict(self.inner.connection_v2["data"])
            data["portals"] = [[address, port, "RoCEv2"] for address, port, _transport in data["portals"]]
        return {"driver_volume_type": "nvmeof", "data": data}
