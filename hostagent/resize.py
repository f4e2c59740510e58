# SPDX-License-Identifier: Apache-2.0
"""The one call that can destroy a disk, and the guard in front of it.

virDomainBlockResize with a smaller size truncates raw files, qcow2 and RBD images and returns success. So it is
called from this file only, always in bytes, never with a size below the capacity read from the same libvirt
connection in the moment before.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.domain import Disk, SourceKind
from hostagent.failure import StoppedError
from hostagent.ports import Hypervisor, LibvirtDomain

_SECTOR: Final = 512  # QEMU rounds up to it
_BYTES: Final = 1  # VIR_DOMAIN_BLOCK_RESIZE_BYTES; without it libvirt reads the size as KiB


@dataclass(frozen=True, slots=True, kw_only=True)
class Resized:
    """Capacity in bytes read before the call; `asked` is False where the disk had exactly that size already."""

    before: int
    asked: bool


class WouldShrinkError(StoppedError):
    """The guard said no: the disk is larger than the size asked for. Nothing was called."""

    def __init__(self, capacity: int, size: int) -> None:
        super().__init__(
            Outcome.REFUSED, Reason.WOULD_SHRINK, f"the disk has {capacity} bytes, {size} were asked for"
        )


def whole_sectors(size: int) -> int:
    """`size` in bytes, rounded up to what QEMU can give."""
    return -(-size // _SECTOR) * _SECTOR


def grow(hypervisor: Hypervisor, server_id: str, disk: Disk, size: int) -> Resized:
    """Make a disk of the domain `size` bytes large, rounded up to 512, or leave it alone.

    A raw file that is already longer than that (its backend grew it further) is taken in full, as QEMU itself does
    with a block device: the smaller size would cut the file, though no byte the guest has seen.

    Raises WouldShrinkError, and StoppedError for everything libvirt says or does not say in time.
    """
    raw_file = disk.kind is SourceKind.FILE and disk.driver_format == "raw"

    def work(domain: LibvirtDomain, wanted: Callable[[], bool]) -> Resized:
        before, _allocation, physical = domain.blockInfo(disk.target)
        wanted_size = whole_sectors(size)
        if wanted_size < before or wanted_size <= 0:
            raise WouldShrinkError(before, wanted_size)
        if raw_file:
            wanted_size = max(wanted_size, whole_sectors(physical))
        if wanted_size == before:
            return Resized(before=before, asked=False)
        if not wanted():  # given up on while blockInfo hung: the caller has answered, a late resize helps nobody
            raise StoppedError(Outcome.LIBVIRT_FAILED, Reason.LIBVIRT_TIMED_OUT, "given up before the resize")
        domain.blockResize(disk.target, wanted_size, _BYTES)
        return Resized(before=before, asked=True)

    return hypervisor.on_domain(server_id, "blockResize", work)
