# SPDX-License-Identifier: Apache-2.0
"""Interfaces between the work on an order and the outside, as narrow as their use.

Tests pass fakes with behaviour. The hypervisor's interface is hostagent/drivers/base.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bridge.core.encryption import Encryption
from hostagent.domain import Disk, Domain

HeaderOf = Callable[[Disk], int]
"""A function that returns the bytes of the volume that are hidden from the guest."""


class Images(Protocol):
    """The images that QEMU's own client opens, read from their storage."""

    def reader(self, disk: Disk) -> Callable[[], int]:
        """Return a reader of the image's current size in bytes from its storage. Both raise StepFailedError."""

    def names(self, disk: Disk) -> frozenset[str]:
        """Return the names that the storage itself gives the image, as `kind value`; empty where it tells none."""

    def luks_header(self, disk: Disk) -> int:
        """Return the number of bytes before the payload of the disk's LUKS1. Raises StepFailedError."""


class DeviceGuard(Protocol):
    """The memory of the device of each volume, with the methods that the work on an order uses."""

    def check(self, domain: Domain, disk: Disk, attachment_id: str | None = None) -> None:
        """Raise StepFailedError (`refused`) where the disk is known to be another volume; remembers nothing."""

    def learn(
        self, domain: Domain, disk: Disk, attachment_id: str | None = None, image: frozenset[str] = frozenset()
    ) -> None:
        """Check the disk, and remember a device that was not known. `image`: the names of an image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nudge:
    """The devices to rescan after a growth, by kernel names: SCSI disks, NVMe controllers, a multipath map."""

    scsi: tuple[str, ...] = ()
    nvme: tuple[str, ...] = ()
    map: str | None = None


class Encryptor(Protocol):
    """The encryptors of os-brick and the key manager, in a process whose end takes the key with it."""

    def grow_map(self, name: str, encryption: Encryption) -> None:
        """Grow the dm-crypt map of this name to its device's size (`cryptsetup resize`). Raises StepFailedError."""


class Brick(Protocol):
    """The calls of os-brick, in a process that can be killed."""

    def extend(self, protocol: str, properties: Mapping[str, Any]) -> int:
        """Call InitiatorConnector.factory(protocol).extend_volume(properties), in bytes. Raises StepFailedError."""

    def rescan(self, nudge: Nudge) -> None:
        """Rescan these devices, under the lock of os-brick's extends. Raises StepFailedError."""

    def read_anew(self, nudge: Nudge) -> None:
        """Rescan these paths, also those that fail a read, and no map. Raises StepFailedError.

        The kernel then knows their worldwide names of now.
        """

    def paths(self, protocol: str, properties: Mapping[str, Any]) -> Sequence[str]:
        """Return get_volume_paths(properties) of the same connector: this host's paths. Raises StepFailedError."""
