# SPDX-License-Identifier: Apache-2.0
"""No order cuts a disk of a guest under libvirt: raw, qcow2 and RBD. Its steps: tests/lab/size_walk.py."""

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest

from bridge.core.messages import Report
from bridge.core.outcome import Outcome
from tests.functional.qemu.conftest import Bench, Host
from tests.lab.ceph import POOL, RbdImage
from tests.lab.disks import Qcow2File, RawFile
from tests.lab.guest import Guest
from tests.lab.size_walk import (
    MARK,
    SEED,
    START,
    WEIGHTS,
    LibvirtVolume,
    SizeWalk,
    WalkedVolume,
    order_of,
    tell_all,
)

pytestmark = pytest.mark.functional


class CephVolume(LibvirtVolume):
    """An RBD image, which QEMU cannot grow."""

    def __init__(self, domain: Callable[[], Any], number: int, disk: RbdImage, chance: random.Random) -> None:
        super().__init__(domain, number, disk, chance, whole=True)

    def true_size(self) -> int | None:
        return int(self.disk.true_size())

    def image(self) -> Sequence[str]:
        return ["-f", "raw", f"rbd:{POOL}/{self.disk.name}:id=admin:conf={self.disk.cluster.conf}"]


class LibvirtAgent:
    """The host agent's work on orders; `restart` forgets everything it knew."""

    def __init__(self, bench: Bench, guest: Guest) -> None:
        self._bench, self._guest = bench, guest
        self._tools, self._session = bench.make()

    def tell(self) -> None:
        tell_all(self._session, self._guest.server_id, self._tools)

    def restart(self) -> None:
        self._session.close()
        self._tools, self._session = self._bench.make()

    def __call__(self, volume: WalkedVolume, size: int) -> Report:
        return order_of(self._guest.server_id, volume, size, self._tools)


class LibvirtWalk(SizeWalk):
    """The steps, and those in which libvirt ends the guest's QEMU."""

    weights: ClassVar[Mapping[str, int]] = {**WEIGHTS, "saved": 1, "guest_restart": 1}

    def __init__(
        self, host: Host, guest: Guest, agent: LibvirtAgent, volumes: Sequence[WalkedVolume], chance: random.Random
    ) -> None:
        super().__init__(agent, volumes, chance)
        self._host, self._guest = host, guest

    def _end_at_a_page(self, volume: WalkedVolume) -> None:
        """Extend a volume of an odd size to whole pages: QEMU starts no guest whose raw file ends within one."""
        if volume.capacity() % MARK or volume.size % MARK:
            volume.size = -(-max(volume.capacity(), volume.size) // MARK) * MARK
            volume.disk.grow(volume.size)
            self.order(volume, volume.size)

    def saved(self, volume: WalkedVolume) -> None:
        """Save, extend, restore: QEMU has the image's size by then, and the guest is told of it."""
        domain = self._host.domain(self._guest)
        for other in self._volumes:
            self._end_at_a_page(other)
        domain.managedSave(0)
        report = self._agent(volume, self.grow(volume))
        assert report.outcome is Outcome.GUEST_SAVED
        domain.create()
        self._agent.tell()
        self.order(volume, volume.size)

    def guest_restart(self, volume: WalkedVolume) -> None:
        """Start another QEMU, which reads the size itself."""
        for other in self._volumes:
            self._end_at_a_page(other)
        self._host.domain(self._guest).destroy()
        self._host.domain(self._guest).create()
        self.order(volume, volume.size)


def volumes(
    host: Host, image: Callable[[int], RbdImage], tmp_path: Path, chance: random.Random
) -> tuple[Guest, list[LibvirtVolume]]:
    disks: list[Any] = [RawFile(tmp_path / "disk.raw", START), Qcow2File(tmp_path / "disk.qcow2", START)]
    image_disk = image(START)
    guest = host.define(*disks, image_disk)
    host.domain(guest).create()
    guest.wait_ready()
    domain = partial(host.domain, guest)
    files = [LibvirtVolume(domain, number, disk, chance) for number, disk in enumerate(disks)]
    return guest, [*files, CephVolume(domain, len(disks), image_disk, chance)]


def test_the_marks_notice_a_disk_that_is_cut(host: Host, image: Callable[[int], RbdImage], tmp_path: Path) -> None:
    _guest, found = volumes(host, image, tmp_path, random.Random(0))
    assert [volume.notices_a_cut() for volume in found] == [True] * 3


def test_no_mark_is_lost_on_a_random_walk(
    host: Host, bench: Bench, image: Callable[[int], RbdImage], tmp_path: Path
) -> None:
    chance = random.Random(SEED)
    guest, found = volumes(host, image, tmp_path, chance)
    LibvirtWalk(host, guest, LibvirtAgent(bench, guest), found, chance).run()
