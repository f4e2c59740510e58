# SPDX-License-Identifier: Apache-2.0
"""Interfaces between the work on an order and the outside, as narrow as their use.

Tests pass fakes with behaviour.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from bridge.core.encryption import Encryption
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.domain import Disk, Domain
from hostagent.errors import StepFailedError

T = TypeVar("T")
_SIZE_MAX: Final = 1 << 63

RESIZE: Final = "blockResize"
"""The name of the call whose errors are divided into temporary and permanent errors."""
HeaderOf = Callable[[Disk], int]
"""A function that returns the bytes of the volume that are hidden from the guest."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """The sizes of virDomainBlockInfo in bytes: the guest's capacity as QEMU shows it, and the source's size now.

    On a block device `physical > capacity` means that the device has grown and the guest does not know yet. For
    files `physical` is the space in use.
    """

    capacity: int
    physical: int

    @classmethod
    def read(cls, answer: object, target: str) -> "Capacity":
        """Read the answer of virDomainGetBlockInfo; raises StepFailedError for impossible sizes."""
        match answer:
            case [int(capacity), int(_), int(physical)] if 0 <= capacity < _SIZE_MAX and 0 <= physical < _SIZE_MAX:
                return cls(capacity, physical)
        raise StepFailedError(
            Outcome.LIBVIRT_FAILED,
            Reason.LIBVIRT_RAISED,
            f"blockInfo of {target}: sizes that no disk has: {answer}",
        )


class LibvirtConnection(Protocol):
    """The one call of a virConnect that a resize needs."""

    def getLibVersion(self) -> int:  # noqa: N802 - libvirt's name
        """Return the version of the domain's libvirt: major * 1,000,000 + minor * 1,000 + release."""


class LibvirtDomain(Protocol):
    """The calls of a virDomain that a resize needs."""

    def connect(self) -> LibvirtConnection:
        """Return the connection on which the domain was found."""

    def XMLDesc(self, flags: int) -> str:  # noqa: N802 - libvirt's name
        """Return the XML of the domain's current state."""

    def blockInfo(self, target: str) -> Sequence[int]:  # noqa: N802 - libvirt's name
        """Return [capacity, allocation, physical] in bytes."""

    def jobStats(self) -> Mapping[str, object]:  # noqa: N802 - libvirt's name
        """Return {type: virDomainJobType, operation: virDomainJobOperation} of the domain's current job."""

    def blockResize(self, target: str, size: int, flags: int) -> int:  # noqa: N802 - libvirt's name
        """Call virDomainBlockResize, which shrinks a disk, too, when `size` is smaller."""


class Hypervisor(Protocol):
    """Libvirt's interface for one worker. Every method raises StepFailedError, also when a call takes too long."""

    def domain(self, server_id: str) -> Domain | None:
        """Return the domain's current state, None where libvirt does not know the domain."""

    def capacity(self, server_id: str, target: str) -> Capacity:
        """Return the current sizes of one disk."""

    def on_domain(self, server_id: str, what: str, work: Callable[[LibvirtDomain, Callable[[], bool]], T]) -> T:
        """Run `work(domain, wanted)` within the call limit; `wanted()` turns false once the caller has given up.

        `work` may run a second time, after a reconnect.
        """


class Images(Protocol):
    """The images that QEMU's own client opens, read from their storage."""

    def reader(self, disk: Disk) -> Callable[[], int]:
        """Return a reader of the image's current size in bytes, without libvirt. Both raise StepFailedError."""

    def luks_header(self, disk: Disk) -> int:
        """Return the number of bytes before the payload of the disk's LUKS1. Raises StepFailedError."""


class DeviceGuard(Protocol):
    """The memory of the device of each volume, with the methods that the work on an order uses."""

    def check(self, domain: Domain, disk: Disk, attachment_id: str | None = None) -> None:
        """Raise StepFailedError (`refused`) where the disk is known to be another volume; remembers nothing."""

    def learn(self, domain: Domain, disk: Disk, attachment_id: str | None = None) -> None:
        """Check the disk, and remember a device that was not known."""


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

    def paths(self, protocol: str, properties: Mapping[str, Any]) -> Sequence[str]:
        """Return get_volume_paths(properties) of the same connector: this host's paths. Raises StepFailedError."""
