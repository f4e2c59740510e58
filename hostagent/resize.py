# SPDX-License-Identifier: Apache-2.0
"""The one call that can destroy a disk, and the guard in front of it.

virDomainBlockResize with a smaller size truncates raw files, qcow2 and RBD images and returns success. So it is
called from this file only, always in bytes, never with a size below the capacity read from the same libvirt
connection in the moment before, and only where the disk of that name still is the volume's: a refresh takes
minutes, in which a guest can get another volume under the name of one that was detached.

A resize also interrupts the guest, which is how its driver learns of the size. So the same call, with the size the
disk has, tells a guest that has the size in its virtual hardware and does not know: restored, migrated, reverted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.domain import BadDomainError, Disk, SourceKind, parse_domain
from hostagent.errors import StepFailedError
from hostagent.ports import RESIZE, Capacity, Hypervisor, LibvirtDomain

_SECTOR: Final = 512  # QEMU rounds up to it
_BYTES: Final = 1  # VIR_DOMAIN_BLOCK_RESIZE_BYTES; without it libvirt reads the size as KiB
_EXTEND: Final = 4  # VIR_DOMAIN_BLOCK_RESIZE_EXTEND; a literal: the binding's constants are those it was built with
_EXTEND_SINCE: Final = 12_003_000  # an older libvirt refuses the whole call for a flag it does not know
# virDomainJobType: one that runs. virDomainJobOperation: what holds the guest's lock until it ends.
_RUNS: Final = frozenset({1, 2})
_LEAVES: Final = frozenset({2, 5, 6, 8})  # save, migration out, snapshot, dump


@dataclass(frozen=True, slots=True, kw_only=True)
class Resized:
    """Capacity in bytes read before the call. `asked`: libvirt was called, and with it the guest was told."""

    before: int
    asked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldNow:
    """The disks a guest was told of: capacity by target, and the run of QEMU it happened in."""

    run: str | None
    capacities: Mapping[str, int]


class WouldShrinkError(StepFailedError):
    """A refusal of the guard: the disk is larger than the size asked for. Nothing was called."""

    def __init__(self, capacity: int, size: int) -> None:
        super().__init__(
            Outcome.REFUSED, Reason.WOULD_SHRINK, f"the disk has {capacity} bytes, {size} were asked for"
        )


def whole_sectors(size: int) -> int:
    """Return `size` in bytes, rounded up to what QEMU can give."""
    return -(-size // _SECTOR) * _SECTOR


def resize_flags(version: int) -> int:
    """Return the flags for a libvirt of this version (virConnectGetLibVersion): bytes, and never smaller."""
    return _BYTES | _EXTEND if version >= _EXTEND_SINCE else _BYTES


def grow(
    hypervisor: Hypervisor,
    server_id: str,
    disk: Disk,
    size: int,
    *,
    header: int = 0,
    image_size: Callable[[], int] | None = None,
    tell: bool = False,
) -> Resized:
    """Make a disk of the domain as large as a volume of `size` bytes is, rounded up to 512, or leave it alone.

    `header`: bytes of the volume that the guest does not see (QEMU's own LUKS). `image_size`: reads how large the
    image is in its storage, for one that QEMU itself would resize (RBD). What libvirt says of it can be old: Cinder
    may have grown it further, another guest may use it. So it is read in the moment before; an image smaller than
    `size` is not touched, a larger one is taken in full.

    A raw file that is longer than `size` (its backend grew it further) is taken in full as well, as QEMU itself
    does with a block device: the smaller size would cut the file, though no byte the guest has seen.

    `tell`: a disk that has exactly this size is resized to it all the same, because that interrupts the guest.

    Raises WouldShrinkError, and StepFailedError for everything libvirt says or does not say in time.
    """
    raw_file = disk.kind is SourceKind.FILE and disk.driver_format == "raw"

    def work(domain: LibvirtDomain, wanted: Callable[[], bool]) -> Resized:
        _check_same(domain, [disk])
        info = Capacity.read(domain.blockInfo(disk.target), disk.target)
        before, physical = info.capacity, info.physical
        wanted_size = whole_sectors(size - header)
        if wanted_size < before or wanted_size <= 0:
            raise WouldShrinkError(before, wanted_size)
        if raw_file:
            wanted_size = max(wanted_size, whole_sectors(physical - header))
        elif image_size is not None:
            wanted_size = max(wanted_size, whole_sectors(_not_below(image_size(), size) - header))
        if wanted_size == before and not tell:
            return Resized(before=before, asked=False)
        _check_stays(domain)
        flags = resize_flags(domain.connect().getLibVersion())
        if image_size is not None:
            _check_same(domain, [disk])  # the look at the image took its time
        _check_wanted(wanted)
        domain.blockResize(disk.target, wanted_size, flags)
        return Resized(before=before, asked=True)

    return hypervisor.on_domain(server_id, RESIZE, work)


def tell(
    hypervisor: Hypervisor,
    server_id: str,
    disks: Sequence[Disk],
    *,
    image_size: Callable[[], int] | None = None,
) -> ToldNow:
    """Tell a running guest the sizes its disks have, by resizing each to exactly that size. Nothing grows.

    A disk whose source has another size by now is left out: that size is a matter for an order, which checks first
    what the source is. `image_size` reads the size of the only disk's image in its storage (RBD).

    Raises StepFailedError for everything libvirt says or does not say in time.
    """

    def work(domain: LibvirtDomain, wanted: Callable[[], bool]) -> ToldNow:
        run = _check_same(domain, disks)
        _check_stays(domain)
        version = domain.connect().getLibVersion()
        capacities: dict[str, int] = {}
        for disk in disks:
            info = Capacity.read(domain.blockInfo(disk.target), disk.target)
            capacity, physical = info.capacity, info.physical
            if _source_size(disk, capacity, physical, version, image_size) != capacity:
                continue
            if image_size is not None:
                _check_same(domain, [disk])
            _check_wanted(wanted)
            domain.blockResize(disk.target, capacity, resize_flags(version))
            capacities[disk.target] = capacity
        return ToldNow(run=run, capacities=capacities)

    return hypervisor.on_domain(server_id, RESIZE, work)


def _source_size(
    disk: Disk, capacity: int, physical: int, version: int, image_size: Callable[[], int] | None
) -> int | None:
    """Return what the source of a disk would give its guest now, None where a resize could cut it.

    A block device is taken as large as it is, whatever QEMU is asked for; below another format QEMU is the only
    writer. A file could be cut by a resize that crosses another one, which libvirt prevents since 12.3.
    """
    if disk.kind is SourceKind.BLOCK:
        return physical if disk.driver_format == "raw" and not disk.luks else capacity
    if disk.kind is SourceKind.NETWORK:
        return whole_sectors(image_size()) if image_size is not None else None
    return capacity if version >= _EXTEND_SINCE else None


def _check_same(domain: LibvirtDomain, disks: Sequence[Disk]) -> str | None:
    """Raise StepFailedError where a disk is another by now: detached, replaced, pivoted. Return the run."""
    try:
        now, run = parse_domain(domain.XMLDesc(0))
    except BadDomainError as ex:
        raise StepFailedError(Outcome.LIBVIRT_FAILED, Reason.LIBVIRT_RAISED, str(ex)) from ex
    here = {_which(disk) for disk in now}
    if other := [disk.target for disk in disks if _which(disk) not in here]:
        raise StepFailedError(
            Outcome.NOT_ATTACHED, Reason.DISK_ABSENT, f"{', '.join(other)} is another disk by now"
        )
    return run


def _check_stays(domain: LibvirtDomain) -> None:
    """Raise StepFailedError where a job would make libvirt hold the resize back for 30 s and then refuse it."""
    job = domain.jobStats()
    if job.get("type") in _RUNS and job.get("operation") in _LEAVES:
        raise StepFailedError(Outcome.BUSY, Reason.DOMAIN_JOB)


def _check_wanted(wanted: Callable[[], bool]) -> None:
    """Raise StepFailedError for a call that was given up on: its caller has answered already."""
    if not wanted():
        raise StepFailedError(Outcome.LIBVIRT_FAILED, Reason.LIBVIRT_TIMED_OUT, "given up before the resize")


def _which(disk: Disk) -> tuple[object, ...]:
    return disk.target, disk.volume_id, disk.kind, disk.source, disk.driver_format


def _not_below(image: int, size: int) -> int:
    """Return the image's size where the backend has grown it. Else QEMU would grow it, unasked by Cinder."""
    if image < size:
        raise StepFailedError(Outcome.DEVICE_STALE, Reason.DEVICE_SMALLER, f"the image has {image} of {size} bytes")
    return image
