# SPDX-License-Identifier: Apache-2.0
"""Checks of a block device before and after a rescan. Device names are reused, so a name alone proves nothing."""

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.devices import paths, sysfs
from hostagent.domain import Disk, SourceKind
from hostagent.errors import StepFailedError
from hostagent.ports import Nudge

_Paths = tuple[Mapping[str, str], Sequence[paths.PathAddress]]
_GIVEN_UP: Final = frozenset({Reason.BRICK_TIMED_OUT, Reason.BRICK_LOCK_HELD, Reason.BRICK_DIED})
"""Failures after which another rescan would wait as long again."""


def check_identity(disk: Disk, connection: Mapping[str, Any] | None) -> None:
    """Raise StepFailedError (`refused`) where a block disk is not the device that the connection data name.

    Connection data without a device_path of this host prove nothing. An RBD image is compared by its name.
    """
    data = connection.get("data") if connection is not None else None
    named = data.get("device_path") if isinstance(data, Mapping) else None
    image = data.get("name") if isinstance(data, Mapping) else None
    if disk.kind is SourceKind.NETWORK and isinstance(image, str) and image != disk.source:
        raise StepFailedError(
            Outcome.REFUSED, Reason.WRONG_DEVICE, f"the domain has {disk.source}, but the connection names {image}"
        )
    if disk.kind is not SourceKind.BLOCK or disk.source is None:
        return
    ours = _device(disk.source)
    if ours is None:
        raise StepFailedError(Outcome.REFUSED, Reason.WRONG_DEVICE, f"{disk.source} is not a block device")
    theirs = _device(named) if isinstance(named, str) and named.startswith("/dev/") else None
    if theirs is not None and theirs != ours:
        raise StepFailedError(
            Outcome.REFUSED, Reason.WRONG_DEVICE, f"the domain has {disk.source}, but the connection names {named}"
        )


def _device(path: str) -> int | None:
    """Return the device number behind a path, links followed; None where there is no block device."""
    try:
        status = os.stat(path)  # noqa: PTH116 - st_rdev
    except OSError:
        return None
    return status.st_rdev if stat.S_ISBLK(status.st_mode) else None


def is_plain_block(disk: Disk) -> bool:
    """Return whether the disk is a raw block device without encryption.

    QEMU's own encryption needs the payload offset, which no strategy knows; a dm-crypt map keeps its size until it
    is resized with its key.
    """
    if disk.kind is not SourceKind.BLOCK or disk.source is None or disk.driver_format != "raw" or disk.encrypted:
        return False
    number = sysfs.device_number(disk.source)
    return number is None or not sysfs.is_crypt(number)


def block_device_size(path: str, root: Path = sysfs.SYS) -> int:
    """Return the bytes of a block device by sysfs, which needs no open and no root. Raises StepFailedError.

    A multipath map counts for no more than each of its paths: a map can be made larger than a path that was not
    rescanned, and what is written behind that path's end is lost.
    """
    number = sysfs.device_number(path)
    size = sysfs.size(number, root) if number is not None else None
    if size is None:
        raise StepFailedError(Outcome.DEVICE_STALE, Reason.DEVICE_SMALLER, f"{path} cannot be read")
    return size


def check_paths_up(disk: Disk, root: Path = sysfs.SYS) -> None:
    """Raise StepFailedError (`paths_down`) with the paths that the kernel itself knows to be down.

    Called first, because a read of such a path can take as long as the transport waits for it to come back.
    """
    number = sysfs.device_number(disk.source or "")
    down = sysfs.paths_down(number, root) if number is not None else ()
    if down:
        raise StepFailedError(Outcome.PATHS_DOWN, Reason.BRICK_RAISED, f"down: {', '.join(down)}")


@contextmanager
def same_volume(disk: Disk, read_anew: Callable[[Nudge], None], root: Path = sysfs.SYS) -> Iterator[None]:
    """Raise StepFailedError (`refused`) where the rescan inside shows that a path is another volume.

    Storage gives LUN numbers of old volumes to new ones; a host that was not told keeps the disk under its old
    name, and only a rescan shows its worldwide name of now.

    A path that was given away may be why the rescan failed, or never began: os-brick reads from every path first.
    So after a failure the paths that work are read anew, and the volume is judged before the failure is.
    """
    number = sysfs.device_number(disk.source or "")
    if number is None:
        yield
        return
    before = sysfs.wwids(number, root), paths.addresses(number, root)
    try:
        yield
    except StepFailedError as ex:
        if ex.outcome in {Outcome.PATHS_DOWN, Outcome.BRICK_FAILED, Outcome.DEVICE_STALE}:
            _check_wwids(disk, before, number, root)
            if ex.reason not in _GIVEN_UP and (working := sysfs.answering(number, root)) != Nudge():
                with suppress(StepFailedError):
                    read_anew(working)
                _check_wwids(disk, before, number, root)
        raise
    _check_wwids(disk, before, number, root)


def _check_wwids(disk: Disk, known: _Paths, number: str, root: Path) -> None:
    """Raise StepFailedError where a path is another volume.

    multipathd may have taken every such path out of its map by now: then they are looked at where they were.
    """
    before, addresses = known
    after = sysfs.wwids(number, root) or paths.wwids_at(addresses, root)
    changed = sorted(name for name in before.keys() & after.keys() if before[name] != after[name])
    if changed or len(set(after.values())) > 1:
        now = ", ".join(f"{name} is {wwid}" for name, wwid in sorted(after.items()))
        was = ", ".join(f"{name} was {before[name]}" for name in changed)
        raise StepFailedError(
            Outcome.REFUSED, Reason.WRONG_DEVICE, f"{disk.source}: {now}{f'; {was}' if was else ''}"
        )


@contextmanager
def explained(disk: Disk, root: Path = sysfs.SYS) -> Iterator[None]:
    """Find the device's fault behind a failed rescan: a path that went down, or a map smaller than its paths."""
    try:
        yield
    except StepFailedError as ex:
        if ex.outcome not in {Outcome.PATHS_DOWN, Outcome.BRICK_FAILED}:
            raise
        check_paths_up(disk, root)
        number = sysfs.device_number(disk.source or "")
        if ex.outcome is Outcome.BRICK_FAILED and number is not None and (sizes := sysfs.uneven(number, root)):
            raise StepFailedError(
                Outcome.DEVICE_STALE, Reason.DEVICE_SMALLER, f"the map and its paths differ: {sizes} ({ex.detail})"
            ) from ex
        raise
