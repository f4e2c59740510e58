# SPDX-License-Identifier: Apache-2.0
"""A guest and its disks as values, the same for every hypervisor.

A disk is known by its serial, which Nova sets to the volume id, or by another mark of the driver. The device path
never finds it: paths are reused.
"""

from dataclasses import dataclass
from enum import StrEnum

from bridge.core.inventory import GuestState


class SourceKind(StrEnum):
    """The place of a disk's bytes."""

    BLOCK = "block"  # a block device of this host
    FILE = "file"  # a file this host sees: local, NFS and friends
    NETWORK = "network"  # QEMU's own client: RBD and others
    OTHER = "other"  # anything else: nothing a Cinder volume is attached by


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSource:
    """The way of QEMU's own client to a disk: (host, port) of each server, and the user whose key it takes."""

    protocol: str
    hosts: tuple[tuple[str, str], ...] = ()
    conf: str | None = None
    user: str | None = None
    secret_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """One disk of a guest. `driver_format` and `source` as the hypervisor was configured, never probed.

    `target`: the driver's name of the disk within its guest. `volume_id`: in lower case, None for another disk.
    `bottom`: the volume itself, beneath an overlay such as a backup tool's snapshot.
    `encrypted`: a layer between the source and the guest decrypts it; `luks`: that layer is QEMU itself, by LUKS1.
    `node`: a mark of this attach, used once in a run of the guest, None where the hypervisor has none.
    `alias`: the name by which the driver's event says that the disk has left its guest.
    `type`: the hypervisor's word for the kind of source. `notifies`: the guest's driver is interrupted when the
    size changes; on other buses a guest looks at a disk's size only when it starts.
    """

    target: str
    kind: SourceKind
    source: str | None
    driver_format: str
    volume_id: str | None
    encrypted: bool = False
    luks: bool = False
    network: NetworkSource | None = None
    node: str | None = None
    alias: str | None = None
    type: str = ""
    notifies: bool = True
    read_only: bool = False
    cdrom: bool = False
    bottom: "Disk | None" = None

    @property
    def device(self) -> "Disk":
        """Return the disk of the volume itself: the bottom of a chain of overlays, else this disk."""
        return self.bottom if self.bottom is not None else self

    @property
    def can_be_told(self) -> bool:
        """Return whether a running guest can be notified of this disk's size."""
        return self.notifies and not self.read_only and not self.cdrom and self._known_kind

    @property
    def _known_kind(self) -> bool:
        if self.kind is SourceKind.NETWORK:
            return self.network is not None and self.network.protocol == "rbd"
        return self.kind in {SourceKind.BLOCK, SourceKind.FILE}

    @property
    def words(self) -> str:
        """Return a name for this kind of disk: type, protocol, format, encryption."""
        protocol = self.network.protocol if self.network is not None else ""
        parts = (self.type or str(self.kind), protocol, self.driver_format or "no format")
        return " ".join(filter(None, (*parts, "encrypted" if self.encrypted else "")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """A guest as its hypervisor shows it now.

    `run`: names one run of the guest on this host, None while it is off. `saved`: off, its memory kept on disk.
    `left`: a definition that the guest left behind when it migrated away.
    """

    server_id: str
    state: GuestState
    disks: tuple[Disk, ...]
    run: str | None = None
    saved: bool = False
    left: bool = False

    def disks_of(self, volume_id: str) -> tuple[Disk, ...]:
        """Return the disks with this volume id. More than one is a serious fault."""
        return tuple(disk for disk in self.disks if disk.volume_id == volume_id)
