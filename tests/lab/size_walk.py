# SPDX-License-Identifier: Apache-2.0
"""A random walk over the sizes of real disks: no order, however old, repeated or out of turn, may cut one.

A step is one thing that happens to one disk: Cinder extends it, orders come late, twice, in the wrong order or too
early, the agent is started anew, the guest is told. Before each step a mark is written through QEMU to the disk's
last whole page of that time. After it the marks are read from outside. Steps: EXTEND_BRIDGE_STEPS, seed:
EXTEND_BRIDGE_SEED.

A mark is a whole page, because direct I/O writes whole pages. libvirt 11 gives the guest the file itself, and
QEMU 10 aborts at a write into a last page that the file has only in part.
"""

import os
import random
import subprocess
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, Protocol

from bridge.core.extend import Bytes, ExtendKey, new_id
from bridge.core.messages import Order, Report
from bridge.core.outcome import Outcome
from hostagent.drivers.base import Hypervisor
from hostagent.extend import ExtendTools, extend
from hostagent.telling import Teller
from hostagent.workers import Orders
from tests.lab.disks import Qcow2File

MIB: Final = 1 << 20
START: Final = 64 * MIB
MARK: Final = 4096  # bytes, and where a mark may begin
KEPT: Final = 12  # marks read back at each step, the newest and some of the old ones
STEPS: Final = int(os.environ.get("EXTEND_BRIDGE_STEPS", "40"))
SEED: Final = int(os.environ.get("EXTEND_BRIDGE_SEED", "1"))
GOOD: Final = {Outcome.RESIZED, Outcome.ALREADY}
WEIGHTS: Final[Mapping[str, int]] = {
    "extend": 20, "late": 10, "twice": 15, "stale": 30, "early": 10, "agent_restart": 10, "tell": 10,
    "tell_of_more": 10,
}  # fmt: skip


class WalkedVolume(ABC):
    """One disk of the guest, its size in Cinder, and the marks in it.

    `whole`: QEMU cannot grow it, so Cinder's size is the size of the device or image.
    """

    def __init__(self, disk: Any, chance: random.Random, *, whole: bool) -> None:
        self.disk = disk
        self.whole = whole
        self.size = START
        self.old_orders: list[int] = []
        self._chance = chance
        self._marks: dict[int, int] = {}

    @abstractmethod
    def capacity(self) -> int:
        """Return the disk's size in QEMU."""

    @abstractmethod
    def write(self, pattern: int, start: int, length: int) -> None:
        """Write the pattern through QEMU, and flush it."""

    def image(self) -> Sequence[str]:
        """Return the arguments by which qemu-io reads the disk from outside."""
        return ["-f", "qcow2" if isinstance(self.disk, Qcow2File) else "raw", str(self.disk.path)]

    def true_size(self) -> int | None:
        """Return the size of the image itself; None where QEMU may have grown it."""
        return None

    def mark(self, pattern: int) -> int:
        """Mark the last whole page; return the capacity now."""
        capacity = self.capacity()
        start = capacity // MARK * MARK - MARK
        self.write(pattern, start, MARK)
        kept = {offset: old for offset, old in self._marks.items() if offset + MARK <= start}
        while len(kept) >= KEPT:
            del kept[self._chance.choice(list(kept))]
        self._marks = kept | {start: pattern}
        self.check()
        return capacity

    def check(self) -> None:
        """Read every mark that is kept."""
        reads = [f"read -P {pattern} {offset} {MARK}" for offset, pattern in self._marks.items()]
        commands = [argument for read in reads for argument in ("-c", read)]
        done = subprocess.run(
            ["qemu-io", "-r", "-U", *commands, *self.image()], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count(f"read {MARK}/{MARK} bytes") == len(reads), done.stdout + done.stderr
        assert "failed" not in done.stdout.lower(), done.stdout


class LibvirtVolume(WalkedVolume):
    """A disk of a guest under libvirt. `domain` returns its virDomain."""

    def __init__(
        self, domain: Callable[[], Any], number: int, disk: Any, chance: random.Random, *, whole: bool = False
    ) -> None:
        import libvirt_qemu  # noqa: PLC0415 - part of libvirt's binding, which the caller's host looked for

        super().__init__(disk, chance, whole=whole)
        self._command = libvirt_qemu.qemuMonitorCommand
        self._domain = domain
        self._device = f"/machine/peripheral/virtio-disk{number}/virtio-backend"
        self.target = f"vd{'abc'[number]}"

    def capacity(self) -> int:
        return int(self._domain().blockInfo(self.target)[0])

    def write(self, pattern: int, start: int, length: int) -> None:
        for command in (f"write -P {pattern} {start} {length}", "flush"):
            self._command(self._domain(), f'qemu-io -d {self._device} "{command}"', 1)

    def notices_a_cut(self) -> bool:
        """Return whether the marks notice that libvirt cuts the disk and grows it again."""
        return marks_notice(self, lambda size: self._domain().blockResize(self.target, size, 1))


class WalkedAgent(Protocol):
    """The host agent's work on the orders of one guest."""

    def restart(self) -> None:
        """Forget all that the agent knew, as its restart does."""

    def tell(self) -> None:
        """Tell the guest of every disk it could be told of, as the agent's own thread does."""

    def __call__(self, volume: WalkedVolume, size: int) -> Report:
        """Work on an order of this size."""


def order_of(server_id: str, volume: WalkedVolume, size: int, tools: ExtendTools) -> Report:
    """Work on an order for this volume of the guest."""
    key = ExtendKey(server_id, volume.disk.volume_id)
    return extend(Order(attempt_id=new_id(), key=key, gen=1, target=Bytes(size)), tools)


def tell_all(hypervisor: Hypervisor, server_id: str, tools: ExtendTools) -> None:
    """Tell the guest of all its disks."""
    teller = Teller(
        hypervisor, tools.told, owners=Orders(), images=tools.images, hidden=lambda _disk: 0,
        on_told=lambda _servers: None,
    )  # fmt: skip
    domain = hypervisor.domain(server_id)
    assert domain is not None
    teller.want(domain.server_id, domain.disks)
    teller.tell_one(domain.server_id)


class SizeWalk:
    """The steps that every guest has. A subclass adds its own, and their weights."""

    weights: ClassVar[Mapping[str, int]] = WEIGHTS

    def __init__(self, agent: WalkedAgent, volumes: Sequence[WalkedVolume], chance: random.Random) -> None:
        self._agent, self._volumes, self._chance = agent, volumes, chance

    def run(self, steps: int = STEPS) -> None:
        """Walk. No mark is lost, no disk gets smaller, no whole image has another size than Cinder's."""
        counted: Counter[str] = Counter()
        for number in range(steps):
            volume = self._chance.choice(self._volumes)
            before = volume.mark(1 + number % 250)
            name = self.step(volume)
            counted[f"{name} {type(volume.disk).__name__}"] += 1
            assert volume.capacity() >= before, (SEED, number, name)
            volume.check()
            assert volume.true_size() in {None, volume.size}, (SEED, number, name)
            if number % 20 == 0:
                for other in self._volumes:
                    other.check()
        print(f"{sum(counted.values())} steps, seed {SEED}: {dict(sorted(counted.items()))}")

    def step(self, volume: WalkedVolume) -> str:
        """Take one step; return its name."""
        [name] = self._chance.choices(list(self.weights), weights=list(self.weights.values()))
        getattr(self, name)(volume)
        return name

    def grow(self, volume: WalkedVolume) -> int:
        """Extend the volume as Cinder does; return its new size."""
        volume.size += self._chance.choice([512, MARK, MIB, 4 * MIB, *([] if volume.whole else [1, 513])])
        volume.disk.grow(volume.size)
        volume.old_orders.append(volume.size)
        return volume.size

    def order(self, volume: WalkedVolume, size: int) -> None:
        """Give the agent an order that must succeed."""
        assert self._agent(volume, size).outcome in GOOD

    def extend(self, volume: WalkedVolume) -> None:
        """Extend, and send the order."""
        self.order(volume, self.grow(volume))
        assert volume.capacity() >= volume.size

    def late(self, volume: WalkedVolume) -> None:
        """Extend; the order is still under way."""
        self.grow(volume)

    def twice(self, volume: WalkedVolume) -> None:
        """Extend twice; the orders come in any order, some more than once."""
        sizes = [self.grow(volume), self.grow(volume)]
        for size in self._chance.sample(sizes * 2, 4):
            self.order(volume, size)
        assert volume.capacity() >= volume.size

    def stale(self, volume: WalkedVolume) -> None:
        """Send an order of long ago, or one that no engine sends."""
        odd = [0, 1, 512, START // 2, volume.size - 512, volume.size - 1, self._chance.randrange(volume.size)]
        self.order(volume, self._chance.choice([*odd, *volume.old_orders[-5:]]))

    def early(self, volume: WalkedVolume) -> None:
        """Order more than Cinder has made: a whole image is left alone, QEMU grows a file."""
        report = self._agent(volume, volume.size + MIB)
        if volume.whole:
            assert report.outcome is Outcome.DEVICE_STALE or report.overhead  # all of a device that lacks 1 MiB
        else:
            volume.size += MIB

    def agent_restart(self, volume: WalkedVolume) -> None:
        """Restart the agent; the order is cast again."""
        self._agent.restart()
        self.order(volume, volume.size)

    def tell(self, volume: WalkedVolume) -> None:
        """Tell the guest of all its disks, as after an event of the hypervisor's; no order asks for it."""
        del volume
        before = [other.capacity() for other in self._volumes]
        self._agent.tell()
        assert [other.capacity() for other in self._volumes] == before

    def tell_of_more(self, volume: WalkedVolume) -> None:
        """Extend, and tell the guest of what it has, before an order came."""
        self.grow(volume)
        before = volume.capacity()
        self._agent.tell()
        assert volume.capacity() == before


def marks_notice(volume: WalkedVolume, resize: Callable[[int], object]) -> bool:
    """Return whether the marks notice that the disk is cut and grown again behind the agent's back."""
    volume.mark(0xA5)
    for size in (START // 2, START):
        resize(size)
    try:
        volume.check()
    except AssertionError:
        return True
    return False
