# SPDX-License-Identifier: Apache-2.0
"""A virDomain as the guard uses it, and the one call of virDomainBlockResize.

virDomainBlockResize with a smaller size truncates raw files, qcow2 and RBD images and returns success. So it is
always called in bytes, and with the flag against shrinking where libvirt knows it.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.domain import Disk
from hostagent.drivers.base import Capacity, GuestDisks, checked_capacity, failed
from hostagent.drivers.libvirt.domain_xml import BadDomainError, parse_domain
from hostagent.errors import StepFailedError

RESIZE: Final = "blockResize"
"""The name of the call whose errors are divided into temporary and permanent errors."""
_BYTES: Final = 1  # VIR_DOMAIN_BLOCK_RESIZE_BYTES; without it libvirt reads the size as KiB
_EXTEND: Final = 4  # VIR_DOMAIN_BLOCK_RESIZE_EXTEND; a literal: the binding's constants are those it was built with
_EXTEND_SINCE: Final = 12_003_000  # an older libvirt refuses the whole call for a flag it does not know
# virDomainJobType: one that runs. virDomainJobOperation: what holds the guest's lock until it ends.
_RUNS: Final = frozenset({1, 2})
_LEAVES: Final = frozenset({2, 5, 6, 8})  # save, migration out, snapshot, dump


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


def resize_flags(version: int) -> int:
    """Return the flags for a libvirt of this version (virConnectGetLibVersion): bytes, and never smaller."""
    return _BYTES | _EXTEND if version >= _EXTEND_SINCE else _BYTES


def read_capacity(domain: LibvirtDomain, target: str) -> Capacity:
    """Return the sizes of virDomainGetBlockInfo; raises StepFailedError for impossible ones."""
    match domain.blockInfo(target):
        case [capacity, _, physical]:
            return checked_capacity(capacity, physical, target)
        case answer:
            raise failed(Reason.HYPERVISOR_RAISED, f"sizes of {target} that no disk has: {answer}")


class LibvirtGuest:
    """A virDomain within one call of a session. Raises libvirt's own errors: the session puts them into words."""

    def __init__(self, domain: LibvirtDomain) -> None:
        self._domain = domain
        self._version: int | None = None

    @property
    def never_shrinks(self) -> bool:
        """Return whether this libvirt has the flag against shrinking."""
        return bool(resize_flags(self._lib_version()) & _EXTEND)

    def look(self) -> GuestDisks:
        """Read the disks from the domain's XML."""
        try:
            disks, run = parse_domain(self._domain.XMLDesc(0))
        except BadDomainError as ex:
            raise failed(Reason.HYPERVISOR_RAISED, str(ex)) from ex
        return GuestDisks(disks=disks, run=run)

    def capacity(self, target: str) -> Capacity:
        """Read the sizes of one disk."""
        return read_capacity(self._domain, target)

    def check_stays(self) -> None:
        """Raise StepFailedError where a job would make libvirt hold the resize back for 30 s and then refuse it."""
        job = self._domain.jobStats()
        if job.get("type") in _RUNS and job.get("operation") in _LEAVES:
            raise StepFailedError(Outcome.BUSY, Reason.DOMAIN_JOB)

    def resize(self, disk: Disk, size: int) -> None:
        """Resize a disk to exactly this size."""
        self._domain.blockResize(disk.target, size, resize_flags(self._lib_version()))

    def _lib_version(self) -> int:
        if self._version is None:
            self._version = self._domain.connect().getLibVersion()
        return self._version
