# SPDX-License-Identifier: Apache-2.0
"""What the work on an order needs of the outside, as narrow as it is used. Tests hand in fakes with behaviour."""

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
"""Name of the call whose errors are split into those that pass and those that stay."""
HeaderOf = Callable[[Disk], int]
"""Bytes of the volume that the guest does not see."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """virDomainBlockInfo in bytes: what QEMU shows the guest, and how large the source is now.

    On a block device `physical > capacity` means that the device has grown and the guest does not know yet; for
    files `physical` is the space in use.
    """

    capacity: int
    physical: int

    @classmethod
    def read(cls, answer: object, target: str) -> "Capacity":
        """Read the answer of virDomainGetBlockInfo; raises StepFailedError for numbers that no disk has."""
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
        """Of the libvirt that serves the domain: major * 1,000,000 + minor * 1,000 + release."""


class LibvirtDomain(Protocol):
    """The calls of a virDomain that a resize needs."""

    def connect(self) -> LibvirtConnection:
        """The connection it was found on."""

    def XMLDesc(self, flags: int) -> str:  # noqa: N802 - libvirt's name
        """The domain as it is now."""

    def blockInfo(self, target: str) -> Sequence[int]:  # noqa: N802 - libvirt's name
        """[capacity, allocation, physical] in bytes."""

    def jobStats(self) -> Mapping[str, object]:  # noqa: N802 - libvirt's name
        """{type: virDomainJobType, operation: virDomainJobOperation} of what runs on the domain now."""

    def blockResize(self, target: str, size: int, flags: int) -> int:  # noqa: N802 - libvirt's name
        """virDomainBlockResize. Makes disks smaller, too, when told so."""


class Hypervisor(Protocol):
    """Libvirt as one worker sees it. Every method raises StoppedError, also when a call takes too long."""

    def domain(self, server_id: str) -> Domain | None:
        """The domain now, None where libvirt does not know it."""

    def capacity(self, server_id: str, target: str) -> Capacity:
        """One disk's sizes now."""

    def on_domain(self, server_id: str, what: str, work: Callable[[LibvirtDomain, Callable[[], bool]], T]) -> T:
        """Run `work(domain, wanted)` within the call limit; `wanted()` turns false once the caller has given up.

        `work` may be run a second time, after a reconnect.
        """


class Images(Protocol):
    """Images that QEMU's own client opens, read from their storage."""

    def reader(self, disk: Disk) -> Callable[[], int]:
        """What reads the image's size in bytes, now, without asking libvirt. Both raise StoppedError."""

    def luks_header(self, disk: Disk) -> int:
        """Bytes before the payload of the disk's LUKS1. Raises StoppedError."""


class DeviceGuard(Protocol):
    """The memory of which device each volume is, as the work on an order uses it."""

    def check(self, domain: Domain, disk: Disk, attachment_id: str | None = None) -> None:
        """Raise StepFailedError (`refused`) where the disk is known to be another volume; learns nothing."""

    def learn(self, domain: Domain, disk: Disk, attachment_id: str | None = None) -> None:
        """Check, and remember a device that was not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nudge:
    """Whom to tell that a device may have grown, by kernel names: SCSI disks, NVMe controllers, a multipath map."""

    scsi: tuple[str, ...] = ()
    nvme: tuple[str, ...] = ()
    map: str | None = None


class Encryptor(Protocol):
    """os-brick's encryptors and the key manager, somewhere the key is gone with the process that used it."""

    def grow_map(self, name: str, encryption: Encryption) -> None:
        """Have the dm-crypt map of this name follow its device (`cryptsetup resize`). Raises StoppedError."""


class Brick(Protocol):
    """os-brick, somewhere it can be killed."""

    def extend(self, protocol: str, properties: Mapping[str, Any]) -> int:
        """InitiatorConnector.factory(protocol).extend_volume(properties), in bytes. Raises StoppedError."""

    def rescan(self, nudge: Nudge) -> None:
        """Have these look again, under the lock of os-brick's extends. Raises StoppedError."""

    def paths(self, protocol: str, properties: Mapping[str, Any]) -> Sequence[str]:
        """get_volume_paths(properties) of the same connector: those of this host. Raises StoppedError."""
