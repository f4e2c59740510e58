# SPDX-License-Identifier: Apache-2.0
"""No order, however old, repeated or out of turn, cuts a real disk: raw, qcow2 and RBD under one guest.

A step is one thing that happens to one disk: Cinder extends it, orders come late, twice, in the wrong order or too
early, the agent is started anew, the guest is. Before each step a mark is written through QEMU to the disk's last
bytes of that time; after it the marks are read from outside. Steps: EXTEND_BRIDGE_STEPS, seed: EXTEND_BRIDGE_SEED.
"""

import os
import random
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from bridge.core.extend import Bytes, ExtendKey, new_id
from bridge.core.messages import Order, Report
from bridge.core.outcome import Outcome
from hostagent.extend import extend
from hostagent.telling import Teller
from hostagent.workers import Orders
from tests.functional.qemu.conftest import Bench, Host
from tests.lab.ceph import POOL, RbdImage
from tests.lab.disks import Qcow2File, RawFile
from tests.lab.guest import Guest

pytestmark = pytest.mark.functional
MIB: Final = 1 << 20
START: Final = 64 * MIB
MARK: Final = 4096
KEPT: Final = 12  # marks read back at each step, the newest and some of the old ones
STEPS: Final = int(os.environ.get("EXTEND_BRIDGE_STEPS", "40"))
SEED: Final = int(os.environ.get("EXTEND_BRIDGE_SEED", "1"))
GOOD: Final = {Outcome.RESIZED, Outcome.ALREADY}


class Volume:
    """One disk of the guest, what Cinder says of it, and the marks in it."""

    def __init__(self, host: Host, guest: Guest, number: int, disk: Any, chance: random.Random) -> None:
        import libvirt_qemu  # noqa: PLC0415 - part of libvirt's binding, which `host` looked for

        self._command = libvirt_qemu.qemuMonitorCommand
        self._host, self._guest, self._chance = host, guest, chance
        self._device = f"/machine/peripheral/virtio-disk{number}/virtio-backend"
        self.target = f"vd{'abc'[number]}"
        self.disk = disk
        self.rbd = isinstance(disk, RbdImage)
        self.size = START  # Cinder's
        self.old_orders: list[int] = []
        self._marks: dict[int, int] = {}

    def capacity(self) -> int:
        """As QEMU has it."""
        return int(self._host.domain(self._guest).blockInfo(self.target)[0])

    def mark(self, pattern: int) -> int:
        """Mark the last bytes; the capacity now."""
        capacity = self.capacity()
        start = capacity - MARK
        for command in (f"write -P {pattern} {start} {MARK}", "flush"):
            self._command(self._host.domain(self._guest), f'qemu-io -d {self._device} "{command}"', 1)
        kept = {offset: old for offset, old in self._marks.items() if offset + MARK <= start}
        while len(kept) >= KEPT:
            del kept[self._chance.choice(list(kept))]
        self._marks = kept | {start: pattern}
        self.check()
        return capacity

    def check(self) -> None:
        """Every mark that is kept is there."""
        reads = [f"read -P {pattern} {offset} {MARK}" for offset, pattern in self._marks.items()]
        commands = [argument for read in reads for argument in ("-c", read)]
        done = subprocess.run(
            ["qemu-io", "-r", "-U", *commands, *self._image()], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count(f"read {MARK}/{MARK} bytes") == len(reads), done.stdout + done.stderr
        assert "failed" not in done.stdout.lower(), done.stdout

    def _image(self) -> list[str]:
        if self.rbd:
            return ["-f", "raw", f"rbd:{POOL}/{self.disk.name}:id=admin:conf={self.disk.cluster.conf}"]
        return ["-f", "raw" if isinstance(self.disk, RawFile) else "qcow2", str(self.disk.path)]


class Agent:
    """The host agent's work on orders; `restart` forgets everything it knew."""

    def __init__(self, bench: Bench, guest: Guest) -> None:
        self._bench, self._guest = bench, guest
        self._tools, self._session = bench.make()

    def tell(self) -> None:
        """Tell the guest as the agent's own thread does, of every disk it could be told of."""
        teller = Teller(
            self._session, self._tools.told, owners=Orders(), images=self._tools.images, hidden=lambda _disk: 0,
            on_told=lambda _servers: None,
        )  # fmt: skip
        domain = self._session.domain(self._guest.server_id)
        teller.want(domain.server_id, domain.disks)
        teller.tell_one(domain.server_id)

    def restart(self) -> None:
        self._session.close()
        self._tools, self._session = self._bench.make()

    def __call__(self, volume: Volume, size: int) -> Report:
        key = ExtendKey(self._guest.server_id, volume.disk.volume_id)
        return extend(Order(attempt_id=new_id(), key=key, gen=1, target=Bytes(size)), self._tools)


class Cloud:
    """The steps."""

    def __init__(
        self, host: Host, guest: Guest, agent: Agent, volumes: Sequence[Volume], chance: random.Random
    ) -> None:
        self._host, self._guest, self._agent, self._volumes = host, guest, agent, volumes
        self._chance = chance

    def _grow(self, volume: Volume) -> int:
        """Cinder extends the volume."""
        volume.size += self._chance.choice([512, MARK, MIB, 4 * MIB, *([] if volume.rbd else [1, 513])])
        volume.disk.grow(volume.size)
        volume.old_orders.append(volume.size)
        return volume.size

    def _end_at_a_page(self, volume: Volume) -> None:
        """Cinder extends a volume of an odd size to whole pages, and the guest has them."""
        if volume.capacity() % MARK or volume.size % MARK:
            volume.size = -(-max(volume.capacity(), volume.size) // MARK) * MARK
            volume.disk.grow(volume.size)
            assert self._agent(volume, volume.size).outcome in GOOD

    def extend(self, volume: Volume) -> None:
        """The plain case; after a mark at an odd size a file has whole pages already."""
        assert self._agent(volume, self._grow(volume)).outcome in GOOD
        assert volume.capacity() >= volume.size

    def late(self, volume: Volume) -> None:
        """Cinder extends, the order is still under way."""
        self._grow(volume)

    def twice(self, volume: Volume) -> None:
        """Two extends, their orders in any order, some more than once."""
        sizes = [self._grow(volume), self._grow(volume)]
        for size in self._chance.sample(sizes * 2, 4):
            assert self._agent(volume, size).outcome in GOOD
        assert volume.capacity() >= volume.size

    def stale(self, volume: Volume) -> None:
        """An order of long ago, or one that nobody should ever have sent."""
        odd = [0, 1, 512, START // 2, volume.size - 512, volume.size - 1, self._chance.randrange(volume.size)]
        size = self._chance.choice([*odd, *volume.old_orders[-5:]])
        assert self._agent(volume, size).outcome in GOOD

    def early(self, volume: Volume) -> None:
        """Larger than what Cinder has made: an image is left alone; a file is QEMU's to grow."""
        report = self._agent(volume, volume.size + MIB)
        if volume.rbd:
            assert report.outcome is Outcome.DEVICE_STALE
        else:
            volume.size += MIB

    def agent_restart(self, volume: Volume) -> None:
        """Killed and started, and the order is cast again."""
        self._agent.restart()
        assert self._agent(volume, volume.size).outcome in GOOD

    def tell(self, volume: Volume) -> None:
        """The agent tells the guest of all its disks, as after an event of libvirt's; no order asks for it."""
        before = [other.capacity() for other in self._volumes]
        self._agent.tell()
        assert [other.capacity() for other in self._volumes] == before
        del volume

    def tell_of_more(self, volume: Volume) -> None:
        """Cinder has made the volume larger, nobody has said so yet, and the guest is told of what it has."""
        self._grow(volume)
        before = volume.capacity()
        self._agent.tell()
        assert volume.capacity() == before

    def saved(self, volume: Volume) -> None:
        """Saved, extended, restored: QEMU has the image's size by then, and the guest is told of it.

        QEMU starts no guest whose raw file ends within a page.
        """
        domain = self._host.domain(self._guest)
        for other in self._volumes:
            self._end_at_a_page(other)
        domain.managedSave(0)
        report = self._agent(volume, self._grow(volume))
        assert report.outcome is Outcome.GUEST_SAVED
        domain.create()
        self._agent.tell()
        assert self._agent(volume, volume.size).outcome in GOOD

    def guest_restart(self, volume: Volume) -> None:
        """Another QEMU, which reads the size itself."""
        for other in self._volumes:
            self._end_at_a_page(other)
        self._host.domain(self._guest).destroy()
        self._host.domain(self._guest).create()
        assert self._agent(volume, volume.size).outcome in GOOD

    def step(self, volume: Volume) -> str:
        """One of them; its name."""
        names = [
            "extend", "late", "twice", "stale", "early", "agent_restart", "tell", "tell_of_more", "saved",
            "guest_restart",
        ]  # fmt: skip
        [name] = self._chance.choices(names, weights=[20, 10, 15, 30, 10, 10, 10, 10, 1, 1])
        getattr(self, name)(volume)
        return name


def volumes(
    host: Host, image: Callable[[int], RbdImage], tmp_path: Path, chance: random.Random
) -> tuple[Guest, list[Volume]]:
    disks: list[Any] = [
        RawFile(tmp_path / "disk.raw", START),
        Qcow2File(tmp_path / "disk.qcow2", START),
        image(START),
    ]
    guest = host.define(*disks)
    host.domain(guest).create()
    guest.wait_ready()
    return guest, [Volume(host, guest, number, disk, chance) for number, disk in enumerate(disks)]


def test_the_marks_would_notice(host: Host, image: Callable[[int], RbdImage], tmp_path: Path) -> None:
    """The same disks, resized behind the agent's back: every mark is lost."""
    guest, found = volumes(host, image, tmp_path, random.Random(0))
    domain = host.domain(guest)
    for volume in found:
        volume.mark(0xA5)
        domain.blockResize(volume.target, START // 2, 1)
        domain.blockResize(volume.target, START, 1)
        with pytest.raises(AssertionError):
            volume.check()


def test_random_steps(host: Host, bench: Bench, image: Callable[[int], RbdImage], tmp_path: Path) -> None:
    """No mark is ever lost, no disk ever smaller, no image ever of another size than Cinder made it."""
    chance = random.Random(SEED)
    guest, found = volumes(host, image, tmp_path, chance)
    cloud = Cloud(host, guest, Agent(bench, guest), found, chance)
    counted: Counter[str] = Counter()
    for number in range(STEPS):
        volume = chance.choice(found)
        before = volume.mark(1 + number % 250)
        name = cloud.step(volume)
        counted[f"{name} {volume.target}"] += 1
        assert volume.capacity() >= before, (SEED, number, name)
        volume.check()
        if volume.rbd:
            assert volume.disk.true_size() == volume.size, (SEED, number, name)
        if number % 20 == 0:
            for other in found:
                other.check()
    print(f"{sum(counted.values())} steps, seed {SEED}: {dict(sorted(counted.items()))}")
