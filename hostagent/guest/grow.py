# SPDX-License-Identifier: Apache-2.0
"""The growth of one volume's file system: look, decide, partition, layers, file system, read back.

Nothing is written before the whole look has shown that the file system can follow. A size is believed when the
guest's agent reads it back; exit codes are not evidence. Each command is a fixed list of words, without a shell.
"""

import re
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Final

from bridge.core import limits
from bridge.core.clean import clean
from bridge.core.extend import Bytes, ExtendKey
from bridge.core.file_systems import FileSystemSeen, FileSystemStep, Follow, FsState
from bridge.core.reasons import Reason
from hostagent.guest.answers import GuestDisk, GuestFileSystem, Printed
from hostagent.guest.calls import AgentCalls
from hostagent.guest.errors import GuestLookError
from hostagent.guest.layout import DiskTree, find_disk, on_top_of, tree_of
from hostagent.guest.plan import (
    Argv,
    GrowCommand,
    GrowFacts,
    GrowPlan,
    GrowRefusal,
    check_logical,
    check_mount,
    check_table,
    covered_argv,
    is_verified,
    plan_growth,
)
from hostagent.guest.printed import (
    Covered,
    LogicalVolume,
    PartitionTable,
    read_covered,
    read_logical_volume,
    read_mounts,
    read_sectors,
    read_swaps,
    read_table,
)
from hostagent.guest.see import GuestView, judge_volume, view

_LOOK_LIMIT: Final = 60.0  # seconds of one command that only looks
_SIZE_WAIT: Final = 15.0  # seconds until a guest's kernel shows a disk's new size
_SIZE_EVERY: Final = 0.5
_DEVICE_MAPPER: Final = re.compile(r"dm-(\d{1,6})")
_LVM: Final = ("lvs", "--reportformat", "json", "--units", "b", "--nosuffix", "-o")
_LVS: Final = "vg_name,lv_name,lv_layout,lv_kernel_minor,lv_count,vg_extent_size"
_PVM: Final = ("pvs", "--reportformat", "json", "--units", "b", "--nosuffix", "-o")
_PVS: Final = "pv_name,vg_name,dev_size,pe_start,pv_size,pv_free"

REFUSALS: Final = frozenset(
    {
        Reason.FS_NOT_MOUNTED, Reason.FS_TYPE, Reason.FS_READ_ONLY, Reason.FS_NOT_LAST, Reason.FS_LUKS,
        Reason.FS_SEVERAL_VOLUMES, Reason.FS_NO_FREE_EXTENTS, Reason.FS_LOGICAL_PARTITION, Reason.FS_MBR_LIMIT,
        Reason.FS_TABLE, Reason.FS_LAYOUT, Reason.FS_SERIAL_AMBIGUOUS, Reason.FS_TOOL_MISSING,
        Reason.FS_AGENT_FORBIDS, Reason.FS_SIZE_LIMIT, Reason.FS_ERRORS,
    }
)  # fmt: skip
"""Reasons that end a growth: its owner has to change something in the guest. Other reasons are tried again."""


class _RefusedError(Exception):
    """The file system cannot grow; nothing was changed."""

    def __init__(self, refusal: GrowRefusal) -> None:
        super().__init__(refusal.reason.value)
        self.refusal = refusal


@dataclass(slots=True)
class VolumeGrowth:
    """One growth under way, and its steps so far. `command_limit`: seconds of a command that changes something."""

    calls: AgentCalls
    key: ExtendKey
    volume_ids: Collection[str]
    capacity: int
    command_limit: float
    clock: Callable[[], float] = time.monotonic
    steps: list[FileSystemStep] = field(default_factory=list)
    touched: bool = False

    def run(self) -> FileSystemSeen:
        """Grow the file system where it can follow. Never raises for anything a guest does."""
        seen = None
        try:
            shown = view(self.calls)
            seen = judge_volume(shown, self.key, self.volume_ids, self.capacity)
            facts = self._look(shown)
            match plan_growth(facts):
                case GrowRefusal() as refusal:
                    return self._ended(seen, FsState.REFUSED, refusal.reason, refusal.detail, follow=Follow.NO)
                case GrowPlan(commands=()):
                    return self._ended(seen, FsState.FITS, Reason.FS_FITS, follow=Follow.YES)
                case GrowPlan() as plan:
                    return self._carry_out(plan, facts, seen, _total(shown, facts.device))
        except _RefusedError as ex:
            return self._ended(seen, FsState.REFUSED, ex.refusal.reason, ex.refusal.detail, follow=Follow.NO)
        except GuestLookError as ex:
            state = FsState.REFUSED if ex.reason in REFUSALS and not self.touched else FsState.FAILED
            return self._ended(seen, state, ex.reason, ex.detail)

    def _carry_out(
        self, plan: GrowPlan, facts: GrowFacts, seen: FileSystemSeen, before: int | None
    ) -> FileSystemSeen:
        self._require_tools(plan)
        for command in plan.commands:
            self.touched = True
            if (words := self._change(command)) is not None:
                return self._ended(seen, FsState.FAILED, Reason.FS_STEP_FAILED, words)
        room = self._size_of(facts.device)
        after_view = view(self.calls)
        after = _total(after_view, facts.device)
        now = judge_volume(after_view, self.key, self.volume_ids, self.capacity)
        if not is_verified(facts.kind, covered=facts.covered.size, room=room, before=before, after=after):
            words = f"{after} bytes after {before}, on a device of {room} bytes"
            return self._ended(now, FsState.FAILED, Reason.FS_NOT_VERIFIED, words)
        return self._ended(now, FsState.GROWN, Reason.FS_GROWN, follow=Follow.YES)

    def _change(self, command: GrowCommand) -> str | None:
        """Run one command; return None on success, else its message."""
        before = self._size_of(command.enlarges) if command.enlarges is not None else 0
        ended = self._run(command.argv, self.command_limit, name=command.name)
        if ended.code != 0:
            return f"{command.argv[0]} ended with {ended.code}: {_said(ended)}"
        if command.enlarges is not None and self._size_of(command.enlarges) <= before:
            return f"{command.argv[0]} did not make {command.enlarges} larger"
        return None

    # --- the look; every command here only reads ---

    def _look(self, shown: GuestView) -> GrowFacts:
        disk = find_disk(shown.disks, self.key.volume_id, self.volume_ids)
        tree = tree_of(disk, shown.disks, shown.file_systems)
        disk_size = self._wait_for_size(disk.device)
        table, base = None, disk.device
        if tree.partitions:
            table = self._table(disk.device)
            if (refusal := check_table(table, disk_size)) is not None:
                raise _RefusedError(refusal)
            base = table.last.device if table.last is not None else disk.device
        device, logical = self._layers(base, tree, shown)
        mounts = [each for each in shown.file_systems if each.device == device]
        mount = self._writable(mounts)
        if mount is None:
            raise _RefusedError(
                check_mount(mounts[0].kind, writable=False) or GrowRefusal(reason=Reason.FS_READ_ONLY)
            )
        return GrowFacts(
            disk=disk.device,
            disk_size=disk_size,
            table=table,
            base=base,
            logical=logical,
            device=device,
            room=self._size_of(device),
            kind=mount.kind,
            mount_point=mount.mount_point,
            writable=True,
            covered=self._covered(mount),
        )

    def _wait_for_size(self, disk: str) -> int:
        deadline = self.clock() + _SIZE_WAIT
        while (size := self._size_of(disk)) < self.capacity:
            if self.clock() >= deadline or self.calls.wait(_SIZE_EVERY):
                raise GuestLookError(Reason.FS_DISK_STILL_SMALL, f"{disk} has {size} of {self.capacity} bytes")
        return size

    def _table(self, disk: str) -> PartitionTable:
        ended = self._run(("sfdisk", "--json", disk), _LOOK_LIMIT)
        if ended.code != 0:
            raise GuestLookError(Reason.FS_TABLE, _said(ended))
        return read_table(ended.out, disk)

    def _layers(self, base: str, tree: DiskTree, shown: GuestView) -> tuple[str, LogicalVolume | None]:
        """Return the device of the file system on the last partition or disk, and LVM's part in between."""
        if any(each.device == base for each in shown.file_systems):
            return base, None
        above = list(on_top_of(base, shown.disks))
        if not above:
            raise self._unmounted(base, tree)
        if len(above) > 1:
            raise _RefusedError(GrowRefusal(reason=Reason.FS_SEVERAL_VOLUMES, detail=f"{len(above)} on {base}"))
        device = above[0].device
        logical = self._logical_volume(base, above[0])
        if not any(each.device == device for each in shown.file_systems):
            reason = Reason.FS_LAYOUT if list(on_top_of(device, shown.disks)) else Reason.FS_NOT_MOUNTED
            raise _RefusedError(GrowRefusal(reason=reason, detail=device))
        return device, logical

    def _unmounted(self, base: str, tree: DiskTree) -> _RefusedError:
        """Return the refusal of a last partition, or disk, on which nothing is mounted."""
        is_swap = base in read_swaps(self._run(("cat", "/proc/swaps"), _LOOK_LIMIT).out)
        reason = Reason.FS_NOT_LAST if is_swap or tree.file_systems else Reason.FS_NOT_MOUNTED
        return _RefusedError(GrowRefusal(reason=reason, detail=f"{base} is {'swap' if is_swap else 'not mounted'}"))

    def _logical_volume(self, base: str, above: GuestDisk) -> LogicalVolume:
        name = PurePosixPath(above.device).name
        mapper = _DEVICE_MAPPER.fullmatch(name)
        if mapper is None:
            raise _RefusedError(GrowRefusal(reason=Reason.FS_LAYOUT, detail=above.device))
        kind = self._run(("cat", f"/sys/class/block/{name}/dm/uuid"), _LOOK_LIMIT).out
        if kind.startswith("CRYPT-"):
            raise _RefusedError(GrowRefusal(reason=Reason.FS_LUKS, detail=above.device))
        if not kind.startswith("LVM-"):
            raise _RefusedError(GrowRefusal(reason=Reason.FS_LAYOUT, detail=above.device))
        volumes = self._run((*_LVM, _LVS), _LOOK_LIMIT)
        physical = self._run((*_PVM, _PVS), _LOOK_LIMIT)
        if volumes.code or physical.code:
            raise GuestLookError(Reason.FS_LAYOUT, _said(volumes if volumes.code else physical))
        logical = read_logical_volume(volumes.out, physical.out, base, int(mapper[1]))
        if (refusal := check_logical(logical)) is not None:
            raise _RefusedError(refusal)
        return logical

    def _writable(self, mounts: list[GuestFileSystem]) -> GuestFileSystem | None:
        """Return a mount of the file system that can be written, None if there is none."""
        if (refusal := check_mount(mounts[0].kind, writable=True)) is not None:
            raise _RefusedError(refusal)
        rows = {mount.mount_point: mount for mount in read_mounts(self._run(_MOUNTS, _LOOK_LIMIT).out)}
        for each in mounts:
            mount = rows.get(each.mount_point)
            if (
                mount is not None
                and mount.writable
                and mount.kind == each.kind
                and each.mount_point.startswith("/")
            ):
                return each
        return None

    def _covered(self, mount: GuestFileSystem) -> Covered:
        argv = covered_argv(mount.kind, mount.device, mount.mount_point)
        ended = self._run(argv, _LOOK_LIMIT)
        if ended.code != 0:
            raise GuestLookError(Reason.FS_LAYOUT, f"{argv[0]} ended with {ended.code}: {_said(ended)}")
        return read_covered(mount.kind, ended.out, mount.device)

    def _require_tools(self, plan: GrowPlan) -> None:
        """Find a missing growpart now: the tools of the other steps have shown sizes already."""
        if any(command.name == "partition" for command in plan.commands):
            self._run(("growpart", "--help"), _LOOK_LIMIT)

    def _size_of(self, device: str) -> int:
        ended = self._run(("cat", f"/sys/class/block/{PurePosixPath(device).name}/size"), _LOOK_LIMIT, record=False)
        return read_sectors(ended.out)

    def _run(self, argv: Argv, seconds: float, *, name: str = "look", record: bool = True) -> Printed:
        """Run a command and note it with its answer."""
        with self._step(name, argv, record=record) as note:
            ended = self.calls.run(argv, seconds)
            note.append(f"{ended.code}: {_said(ended)}")
            return ended

    @contextmanager
    def _step(self, name: str, argv: Argv, *, record: bool) -> Iterator[list[str]]:
        began, note, ok = self.clock(), list[str](), False
        try:
            yield note
            ok = True
        except GuestLookError as ex:
            note.append(str(ex))
            raise
        finally:
            if record or not ok:
                detail = clean(f"{' '.join(argv)} -> {' '.join(note)}", limits.DETAIL.most)
                self.steps.append(FileSystemStep(name=name, ok=ok, seconds=self.clock() - began, detail=detail))

    def _ended(
        self,
        seen: FileSystemSeen | None,
        state: FsState,
        reason: Reason,
        detail: str = "",
        *,
        follow: Follow | None = None,
    ) -> FileSystemSeen:
        if seen is None:
            seen = FileSystemSeen(key=self.key, state=state, reason=reason.value, disk=Bytes(self.capacity))
        if detail:
            words = clean(detail, limits.DETAIL.most)
            self.steps.append(FileSystemStep(name="end", ok=state is FsState.REFUSED, seconds=0.0, detail=words))
        return replace(
            seen,
            state=state,
            reason=reason.value,
            follow=follow if follow is not None else seen.follow,
            asked=True,
            steps=tuple(self.steps[-limits.STEPS.most :]),
        )


_MOUNTS: Final = ("cat", "/proc/self/mountinfo")


def _total(shown: GuestView, device: str) -> int | None:
    return next((each.total for each in shown.file_systems if each.device == device), None)


def _said(ended: Printed) -> str:
    """Return the first words of a command's output, on one line."""
    return clean(" ".join(f"{ended.err[:400]} {ended.out[:400]}".split()), 300)
