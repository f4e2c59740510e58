# SPDX-License-Identifier: Apache-2.0
"""The guest's volumes: one for each bus and backing, and no two ever of the same size."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bridge.core.extend import gib
from tests.lab.ceph import RbdImage
from tests.lab.disks import Disk, LoopDevice, Qcow2File, RawFile

BOOT_ONLY: Final = frozenset({"sata", "usb"})
"""Buses whose guests look at a disk's size at boot and not again."""
QEMU_GROWS: Final = frozenset({"raw", "qcow2"})
"""Backings that nothing but QEMU makes larger."""
_TARGETS: Final = {"virtio": "vd", "scsi": "sd", "sata": "sd", "usb": "sd"}
_CONTROLLERS: Final = "<controller type='scsi' model='virtio-scsi'/><controller type='usb' model='qemu-xhci'/>"


@dataclass(slots=True, kw_only=True)
class GuestVolume:
    """One volume of the guest. `size`: whole GiB, as Cinder has it."""

    bus: str
    backing: str
    target: str
    disk: Disk
    size: int

    @property
    def name(self) -> str:
        """Return its name in the table."""
        return f"{self.bus}/{self.backing}"

    def xml(self) -> str:
        """Return the <disk> element; <shareable/> lets two hosts open it at once during a migration."""
        return (
            self.disk.xml(self.target)
            .replace("bus='virtio'", f"bus='{self.bus}'")
            .replace("</disk>", "<shareable/></disk>" if self.backing != "qcow2" else "</disk>")
        )

    def grow_backend(self) -> None:
        """Do what Cinder's backend does on an extend to the present size."""
        self.disk.grow(gib(self.size))


class Volumes:
    """All volumes of the guest, and the sizes that come next."""

    def __init__(
        self,
        directory: Path,
        kinds: Sequence[tuple[str, str]],
        image: Callable[[int], RbdImage],
    ) -> None:
        """`kinds`: (bus, backing) of each."""
        self._count = len(kinds)
        self._step = 0
        self.all: list[GuestVolume] = []
        letters: dict[str, int] = {}
        for number, (bus, backing) in enumerate(kinds):
            prefix = _TARGETS[bus]
            letter = chr(ord("a") + letters.setdefault(prefix, 0))
            letters[prefix] += 1
            path, size = directory / f"volume-{number}", gib(number + 1)
            disk: Disk = image(size) if backing == "rbd" else _MAKE[backing](path, size)
            self.all.append(
                GuestVolume(bus=bus, backing=backing, target=prefix + letter, disk=disk, size=number + 1)
            )

    def devices(self) -> str:
        """Return the <disk> elements and their controllers."""
        return "".join(volume.xml() for volume in self.all) + _CONTROLLERS

    def shift(self, bus: str, by: int) -> None:
        """Give the disks of a bus the names that are so many letters further."""
        for volume in self.all:
            if volume.bus == bus:
                volume.target = volume.target[:-1] + chr(ord(volume.target[-1]) + by)

    def next_sizes(self) -> None:
        """Give each volume its next size, which no other volume has had."""
        self._step += 1
        for number, volume in enumerate(self.all):
            volume.size = self._step * self._count + number + 1

    def close(self) -> None:
        """Give back what the host holds for them."""
        for volume in self.all:
            volume.disk.close()


_MAKE: Final[dict[str, Callable[[Path, int], Disk]]] = {
    "loop": LoopDevice,
    "raw": RawFile,
    "qcow2": Qcow2File,
}
