# SPDX-License-Identifier: Apache-2.0
"""The one call that can destroy a disk, and the guard in front of it.

virDomainBlockResize with a smaller size truncates raw files, qcow2 and RBD images and returns success. So it is
called from this file only, always in bytes, never with a size below the capacity read from the same libvirt
connection in the moment before, and only where the disk of that name still is the volume's: a refresh takes
minutes, in which a guest can get another volume under the name of one that was detached.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.domain import BadDomainError, Disk, SourceKind, parse_disks
from hostagent.errors import StepFailedError
from hostagent.ports import Hypervisor, LibvirtDomain

_SECTOR: Final = 512  # QEMU rounds up to it
_BYTES: Final = 1  # VIR_DOMAIN_BLOCK_RESIZE_BYTES; without it libvirt reads the size as KiB
_EXTEND: Final = 4  # VIR_DOMAIN_BLOCK_RESIZE_EXTEND; a literal: the binding's constants are those it was built with
_EXTEND_SINCE: Final = 12_003_000  # an older libvirt refuses the whole call for a flag it does not know
# virDomainJobType: one that runs. virDomainJobOperation: what holds the guest's lock until it ends.
_RUNS: Final = frozenset({1, 2})
_LEAVES: Final = frozenset({2, 5, 6, 8})  # save, migration out, snapshot, dump


@dataclass(frozen=True, slots=True, kw_only=True)
class Resized:
    """Capacity in bytes read before the call; `asked` is False where the disk had exactly that size already."""

    before: int
    asked: bool


class WouldShrinkError(StepFailedError):
    """The guard said no: the disk is larger than the size asked for. Nothing was called."""

    def __init__(self, capacity: int, size: int) -> None:
        super().__init__(
            Outcome.REFUSED, Reason.WOULD_SHRINK, f"the disk has {capacity} bytes, {size} were asked for"
        )


def whole_sectors(size: int) -> int:
    """`size` in bytes, rounded up to what QEMU can give."""
    return -(-size // _SECTOR) * _SECTOR


def resize_flags(version: int) -> int:
    """The flags for a libvirt of this version (virConnectGetLibVersion of the server): bytes, and never smaller."""
    return _BYTES | _EXTEND if version >= _EXTEND_SINCE else _BYTES


def grow(
    hypervisor: Hypervisor,
    server_id: str,
    disk: Disk,
    size: int,
    *,
    header: int = 0,
    image_size: Callable[[], int] | None = None,
) -> Resized:
    """Make a disk of the domain as large as a volume of `size` bytes is, rounded up to 512, or leave it alone.

    `header`: bytes of the volume that the guest does not see (QEMU's own LUKS). `image_size`: reads how large the
    image is in its storage, for one that QEMU itself would resize (RBD). What libvirt says of it can be old: Cinder
    may have grown it further, another guest may use it. So it is read in the moment before; an image smaller than
    `size` is not touched, a larger one is taken in full.

    A raw file that is longer than `size` (its backend grew it further) is taken in full as well, as QEMU itself
    does with a block device: the smaller size would cut the file, though no byte the guest has seen.

    Raises WouldShrinkError, and StoppedError for everything libvirt says or does not say in time.
    """
    raw_file = disk.kind is SourceKind.FILE and disk.driver_format == "raw"

    def work(domain: LibvirtDomain, wanted: Callable[[], bool]) -> Resized:
        _check_same(domain, disk)
        before, _allocation, physical = domain.blockInfo(disk.target)
        wanted_size = whole_sectors(size - header)
        if wanted_size < before or wanted_size <= 0:
            raise WouldShrinkError(before, wanted_size)
        if raw_file:
            wanted_size = max(wanted_size, whole_sectors(physical - header))
        elif image_size is not None:
            wanted_size = max(wanted_size, whole_sectors(_not_below(image_size(), size) - header))
        if wanted_size == before:
            return Resized(before=before, asked=False)
        if _leaving(domain.jobStats()):
            raise StepFailedError(Outcome.BUSY, Reason.DOMAIN_JOB)
        flags = resize_flags(domain.connect().getLibVersion())
        if image_size is not None:
            _check_same(domain, disk)  # the look at the image took its time
        if not wanted():  # given up on while a call hung: the caller has answered, a late resize helps nobody
            raise StepFailedError(Outcome.LIBVIRT_FAILED, Reason.LIBVIRT_TIMED_OUT, "given up before the resize")
        domain.blockResize(disk.target, wanted_size, flags)
        return Resized(before=before, asked=True)

    return hypervisor.on_domain(server_id, "blockResize", work)


def _check_same(domain: LibvirtDomain, disk: Disk) -> None:
    """Raise StoppedError where the disk of this name is not the one that was found: detached, replaced, pivoted."""
    try:
        disks = parse_disks(domain.XMLDesc(0))
    except BadDomainError as ex:
        raise StepFailedError(Outcome.LIBVIRT_FAILED, Reason.LIBVIRT_RAISED, str(ex)) from ex
    if _which(disk) not in map(_which, disks):
        raise StepFailedError(Outcome.NOT_ATTACHED, Reason.DISK_ABSENT, f"{disk.target} is another disk by now")


def _which(disk: Disk) -> tuple[object, ...]:
    return disk.target, disk.volume_id, disk.kind, disk.source, disk.driver_format


def _not_below(image: int, size: int) -> int:
    """The image's size, where the volume's backend has grown it: QEMU would do it, unasked by Cinder."""
    if image < size:
        raise StepFailedError(Outcome.DEVICE_STALE, Reason.DEVICE_SMALLER, f"the image has {image} of {size} bytes")
    return image


def _leaving(job: Mapping[str, object]) -> bool:
    """Whether libvirt would hold the resize back for 30 s and then refuse it."""
    return job.get("type") in _RUNS and job.get("operation") in _LEAVES
