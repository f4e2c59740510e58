# SPDX-License-Identifier: Apache-2.0
"""The tiers on one guest: volumes grow on the host, file systems in the guest, and each is judged from inside."""

import hashlib
import shutil
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from bridge.core.extend import ExtendKey
from bridge.core.file_systems import FileSystemSeen, FsState
from bridge.core.reasons import Reason
from hostagent.guest.calls import AgentCalls
from hostagent.guest.errors import GuestLookError
from hostagent.guest.grow import VolumeGrowth
from hostagent.guest.see import judge_volume, view
from tests.lab.lastmile.guest import LabDisk, RunningGuest
from tests.lab.lastmile.guest_layouts import FIRST_MIB, MIB, ROOT, STEP_MIB, GuestLayout
from tests.lab.lastmile.image import ROOT_MIB, ROOT_OFFSET, RULE, GuestImage
from tests.lab.waiting import until

SERVER: Final = "11111111-2222-4333-8444-555555555555"
_CHANGES: Final = frozenset({"growpart", "pvresize", "lvextend", "resize2fs", "xfs_growfs"})
_ENDS: Final = ("grown", "left alone", "failed", "nothing to do")
_FOLLOWED: Final = 0.8  # of the room that was added


@dataclass(frozen=True, slots=True)
class Facts:
    """A volume seen by the lab's own means: bytes of its file system, its partitions, and bytes that must stay."""

    size: int
    table: str
    still: str


@dataclass
class Counts:
    """The cells so far, and what went wrong."""

    grown: int = 0
    refused: int = 0
    lied: int = 0
    touched: int = 0
    wrong: list[str] = field(default_factory=list)

    def line(self) -> str:
        """Return the last line."""
        return f"grown {self.grown} refused {self.refused} lied {self.lied} touched {self.touched}"


class _CutError(Exception):
    """The power is cut here."""


class CutAgents:
    """A guest's agent up to a command of the growth, before which the power is cut."""

    def __init__(self, guest: RunningGuest, before: int) -> None:
        self._guest = guest
        self._left = before

    def agent(self, server_id: str, command: Mapping[str, Any], limit: float) -> Any:
        """Ask the guest's agent, unless it is time for the cut."""
        arguments = command.get("arguments", {})
        argv = [arguments.get("path"), *arguments.get("arg", [])]
        changes = argv[0] in _CHANGES or argv[:3] == ["btrfs", "filesystem", "resize"]
        if changes and "--help" not in argv:
            if self._left == 0:
                raise _CutError
            self._left -= 1
        return self._guest.agent(server_id, command, limit)


class LastMile:
    """One guest with a volume of each layout."""

    def __init__(
        self, image: GuestImage, directory: Path, layouts: Sequence[GuestLayout], *, compares: bool = True
    ) -> None:
        """`compares`: the bytes that a growth alone may change, which reads each disk a few times."""
        self._image, self._directory = image, directory
        self.layouts = layouts
        self.counts = Counts()
        self._compares = compares
        self.sizes = {each.name: (ROOT_MIB if each.name == ROOT else FIRST_MIB) * MIB for each in layouts}
        ids = {each.name: str(uuid.uuid5(uuid.NAMESPACE_DNS, f"volume-{each.name}")) for each in layouts}
        self.disks = {each.name: self._disk(each, ids[each.name]) for each in layouts}
        self.guest = self._boot()
        self.earlier: dict[str, FileSystemSeen] = {}

    def _disk(self, layout: GuestLayout, volume_id: str) -> LabDisk:
        image = self._directory / f"{layout.name}.img"
        if layout.name == ROOT:
            shutil.copyfile(self._image.disk, image)
        else:
            with image.open("wb") as out:
                out.truncate(self.sizes[layout.name])
        return LabDisk(name=layout.name, volume_id=volume_id, bus=layout.bus, image=image)

    def _boot(self) -> RunningGuest:
        first = sorted(self.disks.values(), key=lambda disk: disk.name != ROOT)
        guest = RunningGuest(self._image, self._directory, first)
        guest.wait_boot()
        return guest

    def close(self) -> None:
        """End the guest."""
        self.guest.cut_power()

    def make(self) -> None:
        """Make and mount every layout."""
        for layout in self.layouts:
            self.guest.must(f"{self._words(layout)}mkdir -p $M; set -e; {layout.make}; {layout.mount}")

    def _words(self, layout: GuestLayout) -> str:
        """The variables of a layout's scripts; in a boot device names may change, serials do not."""
        disk = self.disks[layout.name]
        return (
            f"N={layout.name.replace('_', '')}; M={'/' if layout.name == ROOT else f'/data/{layout.name}'}; "
            f"D=$(readlink -f {disk.by_id}); P=${{D}}1; "
        )

    def facts(self, layout: GuestLayout, end: int | None = None) -> Facts:
        """Look from inside; a file system that is not mounted has no bytes.

        `end`: the disk's bytes as far as they are compared, by default all.
        """
        out = self.guest.must(
            f"{self._words(layout)}sync; echo $(mountpoint -q $M && stat -f -c '%S*%b' $M || echo 0*0); "
            "sfdisk --dump $D 2>/dev/null | grep ^/dev/ | tr -d ' '; true"
        )
        first, *table = out.splitlines()
        block, _, blocks = first.partition("*")
        return Facts(
            int(block) * int(blocks), "\n".join(table), self._still(layout, end or self.sizes[layout.name])
        )

    def _still(self, layout: GuestLayout, end: int) -> str:
        """Return the digest of the places of a disk that only its growth writes, as QEMU has written them."""
        digest = hashlib.sha256()
        if not self._compares:
            return ""
        with self.disks[layout.name].image.open("rb") as image:
            for offset, length in layout.still:
                start = offset if offset >= 0 else end + offset
                image.seek(start)
                for at in range(start, min(start + length, end), MIB):
                    digest.update(image.read(min(MIB, start + length - at, end - at)))
        return digest.hexdigest()

    def extend(self) -> None:
        """Make every volume larger on the host, and wait until the guest's kernel shows it."""
        for layout in self.layouts:
            self.sizes[layout.name] += STEP_MIB * MIB
            self.guest.resize(self.disks[layout.name], self.sizes[layout.name])
        for layout in self.layouts:
            wanted = self.sizes[layout.name] // 512
            look = f"{self._words(layout)}cat /sys/class/block/${{D#/dev/}}/size"
            until(
                lambda look=look, wanted=wanted: int(self.guest.must(look)) == wanted,  # type: ignore[misc]
                f"the size of {layout.name}",
            )

    def see_first(self) -> None:
        """Have every layout looked at before its volume grows: what is made for its disk is not behind."""
        shown = view(self.guest.new_calls())
        for layout in self.layouts:
            seen = judge_volume(shown, self._key(layout), self._ids(), self.sizes[layout.name])
            self.earlier[layout.name] = seen
            if layout.grows:
                self._note("fresh", layout, f"{seen.state.value} {seen.reason}", ok=seen.state is FsState.FITS)

    def see(self) -> None:
        """Have the agent's own answers judged: what can follow is behind, and nothing changes."""
        shown = view(self.guest.new_calls())
        for layout in self.layouts:
            earlier = self.earlier.get(layout.name)
            seen = judge_volume(shown, self._key(layout), self._ids(), self.sizes[layout.name], earlier)
            expected = FsState.BEHIND if layout.name != "not_mounted" else FsState.UNKNOWN
            ok = seen.state is expected and seen.disk == self.sizes[layout.name]
            self._note("see", layout, f"{seen.state.value} {seen.reason} {seen.follow.value}", ok=ok)

    def grow(self, tier: str) -> None:
        """Grow every volume by the agent; `again`: everything is done already."""
        for layout in self.layouts:
            before = self.facts(layout)
            seen = self._growth(layout, self.guest.new_calls())
            after = self.facts(layout)
            if tier == "again":
                expected = FsState.FITS if layout.grows else FsState.REFUSED
                ok = seen.state is expected and before == after
                self._count(layout, before, after, said=seen.state is FsState.GROWN)
                self._note(tier, layout, f"{seen.state.value} {seen.reason}", ok=ok, steps=seen)
            else:
                self._judge(tier, layout, before, after, seen)

    def _judge(self, tier: str, layout: GuestLayout, before: Facts, after: Facts, seen: FileSystemSeen) -> None:
        grew = self._count(layout, before, after, said=seen.state is FsState.GROWN)
        if layout.grows:
            ok = grew and seen.state is FsState.GROWN
            self.counts.grown += ok
        else:
            ok = before == after and (seen.state, seen.reason) == (FsState.REFUSED, layout.reason)
            self.counts.refused += ok
        sizes = f"{before.size // MIB} -> {after.size // MIB} MiB"
        self._note(tier, layout, f"{seen.state.value} {seen.reason} {sizes}", ok=ok, steps=seen)

    def _count(self, layout: GuestLayout, before: Facts, after: Facts, *, said: bool) -> bool:
        """Count lies and touched tables; return whether the file system has followed."""
        grew = after.size - before.size >= _FOLLOWED * STEP_MIB * MIB
        self.counts.lied += said and not grew
        self.counts.touched += not grew and (before.table, before.still) != (after.table, after.still)
        return grew

    def _growth(self, layout: GuestLayout, calls: AgentCalls) -> FileSystemSeen:
        growth = VolumeGrowth(
            calls=calls, key=self._key(layout), volume_ids=self._ids(), capacity=self.sizes[layout.name],
            command_limit=600.0,
        )  # fmt: skip
        return growth.run()

    def helper(self) -> None:
        """Switch the helper on, make every volume larger, and wait for its unit."""
        self.guest.must(f"rm -f {RULE}; udevadm control --reload; udevadm settle")
        before, sizes = {layout.name: self.facts(layout) for layout in self.layouts}, dict(self.sizes)
        self.extend()
        for layout in self.layouts:
            end = until(partial(self._end_of_unit, layout), f"the unit of {layout.name}")
            after = self.facts(layout, sizes[layout.name])
            grew = self._count(layout, before[layout.name], after, said=end == "grown")
            ok = grew and end == "grown"
            if not layout.grows:
                ok = end == "left alone" and before[layout.name] == after
            self.counts.grown += ok and layout.grows
            self.counts.refused += ok and not layout.grows
            self._note("helper", layout, f"{end}, {after.size // MIB} MiB", ok=ok)

    def helper_again(self) -> None:
        """Run the helper by hand on disks whose work is done: it changes nothing."""
        for layout in self.layouts:
            before = self.facts(layout)
            said = self.guest.run(f"{self._words(layout)}exec 2>&1; extend-bridge-grow $D").out.strip()
            after = self.facts(layout)
            self._count(layout, before, after, said=": grown: " in said)
            expected = ": nothing to do: " if layout.grows else ": left alone: "
            self._note("helper2", layout, (said.splitlines() or [""])[-1], ok=expected in said and before == after)

    def _end_of_unit(self, layout: GuestLayout) -> str:
        """The first words of the helper's last line for a disk; empty while there is none."""
        unit = f"{self._words(layout)}journalctl -q -o cat -u extend-bridge-grow@${{D#/dev/}}; true"
        lines = [line.partition(": ")[2] for line in self.guest.must(unit).splitlines()]
        ends = [words for line in lines for words in _ENDS if line.startswith(words)]
        return ends[-1] if ends else ""

    def frozen(self) -> None:
        """Have the agent frozen as by a backup: a look ends at once with a reason, and goes on after it."""
        calls = self.guest.new_calls()
        calls.ask("guest-fsfreeze-freeze")
        try:
            view(calls)
        except GuestLookError as ex:
            words, ok = f"{ex.reason.value} {ex.detail}", ex.reason is Reason.FS_AGENT_SILENT
        else:
            words, ok = "answers", True
        finally:
            calls.ask("guest-fsfreeze-thaw")
        print(f"frozen   {'ok   ' if ok else 'WRONG'} agent while frozen: {words}", flush=True)
        if not ok:
            self.counts.wrong.append("frozen")

    def cut(self, number: int) -> None:
        """Cut the power before command `number` of each growth; check, mount and complete after the next boot."""
        self.extend()
        layouts = [layout for layout in self.layouts if layout.grows and layout.cuts >= number]
        before = {layout.name: self.facts(layout) for layout in layouts}
        for layout in layouts:
            calls = AgentCalls(CutAgents(self.guest, number), SERVER, limit=120.0, sleep=lambda _: False)
            try:
                self._growth(layout, calls)
            except _CutError:
                continue
        self.guest.cut_power()
        root_fault = self._root_fault()
        self.guest = self._boot()
        for layout in self.layouts:
            if layout.name != ROOT:
                self.guest.must(f"{self._words(layout)}mkdir -p $M; set -e; {layout.mount}")
        for layout in layouts:
            fault = root_fault if layout.name == ROOT else self._fault(layout)
            seen = self._growth(layout, self.guest.new_calls())
            after = self.facts(layout)
            grew = self._count(layout, before[layout.name], after, said=seen.state in {FsState.GROWN, FsState.FITS})
            ok = grew and not fault
            self.counts.grown += ok
            words = f"{seen.state.value} {seen.reason} {after.size // MIB} MiB {fault}"
            self._note(f"cut {number}", layout, words, ok=ok, steps=seen)
        for layout in self.layouts:
            if layout not in layouts:
                self._growth(layout, self.guest.new_calls())

    def _fault(self, layout: GuestLayout) -> str:
        """Unmount, check and mount a file system; the checker's words where it is not clean."""
        script = f"umount $M; {layout.check} {layout.device} >/run/check 2>&1; code=$?; {layout.mount}; exit $code"
        ended = self.guest.run(f"{self._words(layout)}{script}")
        return "" if ended.code == 0 else self.guest.must("tail -c 400 /run/check").replace("\n", " ")

    def _root_fault(self) -> str:
        """Check a copy of the root disk's file system, its journal played first, as the next boot does.

        The copy begins at the partition: behind an offset e2fsck plays the journal and then finds something else.
        """
        copy = self._directory / "root.copy"
        skip = f"skip={ROOT_OFFSET >> 20}"
        dd = ("dd", f"if={self.disks[ROOT].image}", f"of={copy}", "bs=1M", skip, "conv=sparse")
        subprocess.run(dd, check=True, capture_output=True)
        for options, most in (("-fp", 1), ("-fn", 0)):
            command = ("e2fsck", options, str(copy))
            ended = subprocess.run(command, capture_output=True, text=True, check=False)
            if ended.returncode > most:
                return f"e2fsck {options}: {ended.returncode}: {ended.stdout[-400:]}".replace("\n", " ")
        return ""

    def _key(self, layout: GuestLayout) -> ExtendKey:
        return ExtendKey(SERVER, self.disks[layout.name].volume_id)

    def _ids(self) -> list[str]:
        return [disk.volume_id for disk in self.disks.values()]

    def _note(
        self, tier: str, layout: GuestLayout, words: str, *, ok: bool, steps: FileSystemSeen | None = None
    ) -> None:
        print(f"{tier:8} {'ok   ' if ok else 'WRONG'} {layout.name:17} {layout.bus:6} {words}", flush=True)
        if not ok:
            self.counts.wrong.append(f"{tier} {layout.name}")
            for step in steps.steps if steps is not None else ():
                print(f"    {step.name}: {step.detail[:300]}", flush=True)
