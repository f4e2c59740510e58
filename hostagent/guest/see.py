# SPDX-License-Identifier: Apache-2.0
"""A look at the volumes of one guest by its agent's own answers: no command runs in the guest."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

from bridge.core.clean import clean
from bridge.core.extend import Bytes, ExtendKey
from bridge.core.file_systems import FileSystemSeen, FsState
from bridge.core.reasons import Reason
from hostagent.guest.answers import GuestDisk, GuestFileSystem, read_disks, read_file_systems
from hostagent.guest.calls import AgentCalls
from hostagent.guest.errors import GuestLookError
from hostagent.guest.layout import FLOORS, DiskTree, can_follow, find_disk, is_behind, stayed_behind, tree_of

_WORDS_MAX: Final = 255


@dataclass(frozen=True, slots=True)
class GuestView:
    """The disks and file systems of a guest, as its agent shows them."""

    disks: tuple[GuestDisk, ...]
    file_systems: tuple[GuestFileSystem, ...]


def view(calls: AgentCalls) -> GuestView:
    """Ask a guest's agent for its disks and file systems. Raises GuestLookError."""
    disks = read_disks(calls.ask("guest-get-disks"))
    return GuestView(disks, read_file_systems(calls.ask("guest-get-fsinfo")))


def unseen(key: ExtendKey, reason: Reason, disk: int | None = None) -> FileSystemSeen:
    """Return a volume whose file systems cannot be seen."""
    return FileSystemSeen(
        key=key, state=FsState.UNKNOWN, reason=reason.value, disk=Bytes(disk) if disk is not None else None
    )


def judge_volume(
    shown: GuestView,
    key: ExtendKey,
    volume_ids: Collection[str],
    capacity: int,
    earlier: FileSystemSeen | None = None,
) -> FileSystemSeen:
    """Return the file systems of one volume. Pure.

    `capacity`: the size its guest is shown; `earlier`: the last look at which they had their disk's size.
    """
    try:
        disk = find_disk(shown.disks, key.volume_id, volume_ids)
    except GuestLookError as ex:
        return unseen(key, ex.reason, capacity)
    tree = tree_of(disk, shown.disks, shown.file_systems)
    follow, why = can_follow(tree)
    first = min(tree.file_systems, key=lambda each: (each.device, len(each.mount_point)), default=None)
    size = tree.size
    seen = FileSystemSeen(
        key=key,
        state=FsState.UNKNOWN,
        reason=why.value,
        layout=tree.layout,
        follow=follow,
        kind=clean(", ".join(sorted({each.kind for each in tree.file_systems})), 64),
        mount_point=clean(first.mount_point, _WORDS_MAX) if first is not None else "",
        disk=Bytes(capacity),
        size=Bytes(size) if size is not None else None,
    )
    match _behind(tree, capacity, seen, earlier):
        case None:
            return seen
        case False:
            return replace(seen, state=FsState.FITS, reason=Reason.FS_FITS.value)
        case _:
            return replace(seen, state=FsState.BEHIND)


def _behind(tree: DiskTree, capacity: int, seen: FileSystemSeen, earlier: FileSystemSeen | None) -> bool | None:
    """Return whether file systems are behind: by their size alone, or as they did not follow since `earlier`."""
    behind = is_behind(tree, capacity)
    if behind is not False or earlier is None or seen.size is None:
        return behind
    if earlier.disk is None or earlier.size is None or earlier.layout is not seen.layout:
        return behind
    floor = min((FLOORS.get(each.kind, 0.80) for each in tree.file_systems), default=0.80)
    return stayed_behind((earlier.disk, earlier.size), (capacity, seen.size), floor)


def reference(earlier: FileSystemSeen | None, seen: FileSystemSeen) -> FileSystemSeen:
    """Return the look to compare later ones with: the last one at which the file system had its disk's size."""
    if earlier is None or seen.state in {FsState.FITS, FsState.GROWN} or seen.layout is not earlier.layout:
        return seen
    return earlier
