# SPDX-License-Identifier: Apache-2.0
"""The one call that can destroy a disk, and the guard in front of it.

A resize with a smaller size truncates raw files, qcow2 and RBD images and returns success. So a driver's `resize`
is called from this file only. The size is never below the capacity, which is read over the same connection in the
moment before. The disk of that name must still be the volume's, because a refresh takes minutes. Meanwhile the
guest can get another volume under the name of a detached one.

A resize also interrupts the guest, which is how its driver learns of the size. So the same call, with the size that
the disk already has, tells a guest that does not know it, for example after a restore, migration or revert.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.domain import Disk, SourceKind
from hostagent.drivers.base import GuestHandle, Hypervisor
from hostagent.errors import StepFailedError

_SECTOR: Final = 512  # QEMU rounds up to it


@dataclass(frozen=True, slots=True, kw_only=True)
class Resized:
    """Capacity in bytes read before the call. `asked`: a resize was made, and with it the guest was told."""

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
            Outcome.REFUSED, Reason.WOULD_SHRINK, f"the disk has {capacity} bytes, the requested size is {size}"
        )


def whole_sectors(size: int) -> int:
    """Return `size` in bytes, rounded up to what QEMU can give."""
    return -(-size // _SECTOR) * _SECTOR


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
    """Make a disk of the guest as large as a volume of `size` bytes is, rounded up to 512, or leave it alone.

    `header`: bytes of the volume that the guest does not see (QEMU's own LUKS). `image_size`: reads how large the
    image is in its storage, for one that QEMU itself would resize (RBD). What QEMU says of it can be old: Cinder
    may have grown it further, another guest may use it. So it is read in the moment before; an image smaller than
    `size` is not touched, a larger one is taken in full.

    A raw file that its backend grew beyond `size` is taken in full, as QEMU does with a block device. The smaller
    size would cut the file, although only bytes that the guest has never seen.

    `tell`: a disk that has exactly this size is resized to it all the same, because that interrupts the guest.

    Raises WouldShrinkError, and StepFailedError for everything the hypervisor says or does not say in time.
    """
    raw_file = disk.kind is SourceKind.FILE and disk.driver_format == "raw"

    def work(guest: GuestHandle, wanted: Callable[[], bool]) -> Resized:
        _check_same(guest, [disk])
        info = guest.capacity(disk.target)
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
        guest.check_stays()
        if image_size is not None:
            _check_same(guest, [disk])  # the look at the image took its time
        _check_wanted(wanted)
        guest.resize(disk, wanted_size)
        return Resized(before=before, asked=True)

    return hypervisor.on_guest(server_id, work)


def tell(
    hypervisor: Hypervisor,
    server_id: str,
    disks: Sequence[Disk],
    *,
    image_size: Callable[[], int] | None = None,
) -> ToldNow:
    """Tell a running guest the sizes its disks have, by resizing each to exactly that size. Nothing grows.

    A disk whose source has another size by now is left out. That size needs an order, which checks first what the
    source is. `image_size` reads the size of the only disk's image in its storage (RBD).

    Raises StepFailedError for everything the hypervisor says or does not say in time.
    """

    def work(guest: GuestHandle, wanted: Callable[[], bool]) -> ToldNow:
        run = _check_same(guest, disks)
        guest.check_stays()
        capacities: dict[str, int] = {}
        for disk in disks:
            info = guest.capacity(disk.target)
            capacity, physical = info.capacity, info.physical
            if _source_size(disk, capacity, physical, image_size, never_shrinks=guest.never_shrinks) != capacity:
                continue
            if image_size is not None:
                _check_same(guest, [disk])
            _check_wanted(wanted)
            guest.resize(disk, capacity)
            capacities[disk.target] = capacity
        return ToldNow(run=run, capacities=capacities)

    return hypervisor.on_guest(server_id, work)


def _source_size(
    disk: Disk, capacity: int, physical: int, image_size: Callable[[], int] | None, *, never_shrinks: bool
) -> int | None:
    """Return what the source of a disk would give its guest now, None where a resize could cut it.

    A block device is taken as large as it is, whatever QEMU is asked for; below another format QEMU is the only
    writer. A file could be cut by a resize that crosses another one, unless the hypervisor itself prevents it.
    """
    if disk.kind is SourceKind.BLOCK:
        return physical if disk.driver_format == "raw" and not disk.luks else capacity
    if disk.kind is SourceKind.NETWORK:
        return whole_sectors(image_size()) if image_size is not None else None
    return capacity if never_shrinks else None


def _check_same(guest: GuestHandle, disks: Sequence[Disk]) -> str | None:
    """Raise StepFailedError where a disk is another by now: detached, replaced, pivoted. Return the run."""
    now = guest.look()
    here = {_which(disk) for disk in now.disks}
    if other := [disk.target for disk in disks if _which(disk) not in here]:
        raise StepFailedError(Outcome.NOT_ATTACHED, Reason.DISK_ABSENT, f"{', '.join(other)} is another disk now")
    return now.run


def _check_wanted(wanted: Callable[[], bool]) -> None:
    """Raise StepFailedError for a call that was given up on: its caller has answered already."""
    if not wanted():
        raise StepFailedError(
            Outcome.HYPERVISOR_FAILED, Reason.HYPERVISOR_TIMED_OUT, "the order was abandoned before the resize"
        )


def _which(disk: Disk) -> tuple[object, ...]:
    return disk.target, disk.volume_id, disk.kind, disk.source, disk.driver_format


def _not_below(image: int, size: int) -> int:
    """Return the image's size where the backend has grown it. Else QEMU would grow it, unasked by Cinder."""
    if image < size:
        raise StepFailedError(Outcome.DEVICE_STALE, Reason.DEVICE_SMALLER, f"the image has {image} of {size} bytes")
    return image
