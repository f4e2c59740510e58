# SPDX-License-Identifier: Apache-2.0
"""No order, however old, repeated or out of turn, cuts a disk of a plain QEMU, whose block_resize knows no guard.

A step is one thing that happens to one disk. Before each step a mark is written through QEMU to its last bytes
of that time; after it the marks are read from outside. Steps: EXTEND_BRIDGE_STEPS, seed: EXTEND_BRIDGE_SEED.
"""

import os
import random
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from prometheus_client import CollectorRegistry

from bridge.core.extend import Bytes, ExtendKey, new_id
from bridge.core.messages import Order, Report
from bridge.core.outcome import Outcome
from bridge.runtime.health import Health
from bridge.runtime.metrics import AgentMetrics
from hostagent.devices.block import LocalStrategy
from hostagent.devices.image import FileStrategy
from hostagent.devices.length import length_of
from hostagent.drivers.base import DriverTools, HypervisorHost, ProbeFacts
from hostagent.drivers.qmp.driver import DRIVER
from hostagent.drivers.qmp.settings import QmpSettings
from hostagent.extend import ExtendTools, extend
from hostagent.ports import Nudge
from hostagent.refresh import DeviceWait
from hostagent.storage_reads import StorageReads
from hostagent.telling import Teller
from hostagent.workers import Orders
from tests.conftest import missing
from tests.lab.disks import LoopDevice, Qcow2File, RawFile
from tests.lab.plain_qemu import PlainQemu, have_qemu

pytestmark = pytest.mark.functional
MIB: Final = 1 << 20
START: Final = 64 * MIB
MARK: Final = 4096
KEPT: Final = 12
STEPS: Final = int(os.environ.get("EXTEND_BRIDGE_STEPS", "40"))
SEED: Final = int(os.environ.get("EXTEND_BRIDGE_SEED", "1"))
GOOD: Final = {Outcome.RESIZED, Outcome.ALREADY}
WEIGHTS: Final[Mapping[str, int]] = {
    "extend": 20, "late": 10, "twice": 15, "stale": 30, "early": 10, "agent_restart": 8, "tell": 10,
    "tell_of_more": 10, "paused": 3, "reset": 2, "guest_restart": 2,
}  # fmt: skip


class NoBrick:
    """A loop device needs nothing of os-brick."""

    def extend(self, protocol: str, properties: Mapping[str, Any]) -> int:
        del protocol, properties
        return 0

    def rescan(self, nudge: Nudge) -> None:
        raise AssertionError(nudge)

    read_anew = rescan

    def paths(self, protocol: str, properties: Mapping[str, Any]) -> Sequence[str]:
        raise AssertionError(protocol, properties)


class WalkedVolume:
    """One disk of the guest, what Cinder says of it, and the marks in it."""

    def __init__(self, qemu: PlainQemu, number: int, chance: random.Random) -> None:
        self._qemu, self._number, self._chance = qemu, number, chance
        self.disk: Any = qemu.guest.disks[number]
        self.device = isinstance(self.disk, LoopDevice)
        self.size = START  # Cinder's
        self.old_orders: list[int] = []
        self._marks: dict[int, int] = {}

    def capacity(self) -> int:
        """As QEMU has it."""
        return self._qemu.size(self._number)

    def mark(self, pattern: int) -> int:
        """Mark the last bytes; the capacity now."""
        capacity = self.capacity()
        start = capacity - MARK
        self._qemu.write_mark(self._number, pattern, start, MARK)
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
        path = self.disk.device if self.device else str(self.disk.path)
        form = "qcow2" if isinstance(self.disk, Qcow2File) else "raw"
        done = subprocess.run(
            ["qemu-io", "-r", "-U", *commands, "-f", form, path], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count(f"read {MARK}/{MARK} bytes") == len(reads), done.stdout + done.stderr
        assert "failed" not in done.stdout.lower(), done.stdout


class WalkedAgent:
    """The host agent's work on orders over the driver; `restart` forgets everything it knew."""

    def __init__(self, directory: Path, qemu: PlainQemu) -> None:
        self._directory, self._qemu = directory, qemu
        self._host: HypervisorHost | None = None
        self.restart()

    def restart(self) -> None:
        self.close()
        health, metrics = Health(), AgentMetrics(CollectorRegistry())
        reads = StorageReads(limit=30, most=8, health=health, gauge=metrics.storage_reads)
        self._host = DRIVER.open(
            QmpSettings(sockets=(f"{self._directory}/*.qmp",), limit=60),
            DriverTools(
                health=health, hanging=metrics.abandoned, file_size=partial(length_of, reads), facts=ProbeFacts()
            ),
        )
        self._session = self._host.session()
        self._tools = ExtendTools(
            hypervisor=self._session, strategies=[LocalStrategy(NoBrick()), FileStrategy()],
            sleep=threading.Event().wait, patience=DeviceWait(device_wait=0.1, nudge_every=0.1),
        )  # fmt: skip

    def tell(self) -> None:
        """Tell the guest as the agent's own thread does, of every disk it could be told of."""
        teller = Teller(
            self._session, self._tools.told, owners=Orders(), images=None, hidden=lambda _disk: 0,
            on_told=lambda _servers: None,
        )  # fmt: skip
        domain = self._session.domain(self._qemu.server_id)
        assert domain is not None
        teller.want(domain.server_id, domain.disks)
        teller.tell_one(domain.server_id)

    def close(self) -> None:
        if self._host is not None:
            self._host.close()

    def __call__(self, volume: WalkedVolume, size: int) -> Report:
        key = ExtendKey(self._qemu.server_id, volume.disk.volume_id)
        return extend(Order(attempt_id=new_id(), key=key, gen=1, target=Bytes(size)), self._tools)


class PlainCloud:
    """The steps."""

    def __init__(
        self, qemu: PlainQemu, agent: WalkedAgent, volumes: Sequence[WalkedVolume], chance: random.Random
    ) -> None:
        self._qemu, self._agent, self._volumes, self._chance = qemu, agent, volumes, chance

    def _grow(self, volume: WalkedVolume) -> int:
        """Cinder extends the volume."""
        volume.size += self._chance.choice([512, MARK, MIB, 4 * MIB, *([] if volume.device else [1, 513])])
        volume.disk.grow(volume.size)
        volume.old_orders.append(volume.size)
        return volume.size

    def extend(self, volume: WalkedVolume) -> None:
        """The plain case."""
        assert self._agent(volume, self._grow(volume)).outcome in GOOD
        assert volume.capacity() >= volume.size

    def late(self, volume: WalkedVolume) -> None:
        """Cinder extends, the order is still under way."""
        self._grow(volume)

    def twice(self, volume: WalkedVolume) -> None:
        """Two extends, their orders in any order, some more than once."""
        sizes = [self._grow(volume), self._grow(volume)]
        for size in self._chance.sample(sizes * 2, 4):
            assert self._agent(volume, size).outcome in GOOD
        assert volume.capacity() >= volume.size

    def stale(self, volume: WalkedVolume) -> None:
        """An order of long ago, or one that nobody should ever have sent."""
        odd = [0, 1, 512, START // 2, volume.size - 512, volume.size - 1, self._chance.randrange(volume.size)]
        assert self._agent(volume, self._chance.choice([*odd, *volume.old_orders[-5:]])).outcome in GOOD

    def early(self, volume: WalkedVolume) -> None:
        """Larger than what Cinder has made: a device is left alone; a file is QEMU's to grow."""
        report = self._agent(volume, volume.size + MIB)
        if volume.device:
            assert report.outcome is Outcome.DEVICE_STALE or report.overhead  # all of a device that lacks 1 MiB
        else:
            volume.size += MIB

    def agent_restart(self, volume: WalkedVolume) -> None:
        """Killed and started, and the order is cast again."""
        self._agent.restart()
        assert self._agent(volume, volume.size).outcome in GOOD

    def tell(self, volume: WalkedVolume) -> None:
        """The agent tells the guest of all its disks; no order asks for it."""
        del volume
        before = [other.capacity() for other in self._volumes]
        self._agent.tell()
        assert [other.capacity() for other in self._volumes] == before

    def tell_of_more(self, volume: WalkedVolume) -> None:
        """Cinder has made the volume larger, nobody has said so yet, and the guest is told of what it has."""
        self._grow(volume)
        before = volume.capacity()
        self._agent.tell()
        assert volume.capacity() == before

    def paused(self, volume: WalkedVolume) -> None:
        """QEMU holds its disks while the guest is paused."""
        self._qemu.execute("stop")
        assert self._agent(volume, self._grow(volume)).outcome in GOOD
        self._qemu.execute("cont")

    def reset(self, volume: WalkedVolume) -> None:
        """The guest starts again in the same QEMU."""
        self._qemu.execute("system_reset")
        assert self._agent(volume, volume.size).outcome in GOOD

    def guest_restart(self, volume: WalkedVolume) -> None:
        """Another QEMU behind the same socket's name; it reads the size itself."""
        self._qemu.stop()
        self._qemu.launch()
        assert self._agent(volume, volume.size).outcome in GOOD

    def step(self, volume: WalkedVolume) -> str:
        """One of them; its name."""
        [name] = self._chance.choices(list(WEIGHTS), weights=list(WEIGHTS.values()))
        getattr(self, name)(volume)
        return name


@pytest.fixture
def boot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], PlainQemu]]:
    """Starts a guest with a raw file, a qcow2 file and, for root, a block device."""
    if not have_qemu():
        missing("QEMU and gcc")
    with ExitStack() as stack:

        def start() -> PlainQemu:
            directory = tmp_path_factory.mktemp("q")
            disks: list[Any] = [
                RawFile(directory / "disk.raw", START),
                Qcow2File(directory / "disk.qcow2", START),
                *([LoopDevice(directory / "disk.img", START)] if os.geteuid() == 0 else []),
            ]
            for disk in disks:
                stack.callback(disk.close)
            return stack.enter_context(PlainQemu(directory, disks))

        yield start


def test_the_marks_would_notice(boot: Callable[[], PlainQemu]) -> None:
    """The same files, resized behind the agent's back: every mark is lost."""
    qemu = boot()
    for number in (0, 1):
        volume = WalkedVolume(qemu, number, random.Random(0))
        volume.mark(0xA5)
        for size in (START // 2, START):
            qemu.execute("block_resize", **{"node-name": f"node{number}", "size": size})
        with pytest.raises(AssertionError):
            volume.check()


def test_random_steps(boot: Callable[[], PlainQemu]) -> None:
    """No mark is ever lost, and no disk is ever smaller."""
    chance, qemu = random.Random(SEED), boot()
    volumes = [WalkedVolume(qemu, number, chance) for number in range(len(qemu.guest.disks))]
    agent = WalkedAgent(qemu.socket.parent, qemu)
    cloud, counted = PlainCloud(qemu, agent, volumes, chance), Counter[str]()
    for number in range(STEPS):
        volume = chance.choice(volumes)
        before = volume.mark(1 + number % 250)
        name = cloud.step(volume)
        counted[f"{name} {type(volume.disk).__name__}"] += 1
        assert volume.capacity() >= before, (SEED, number, name)
        volume.check()
        if number % 20 == 0:
            for other in volumes:
                other.check()
    agent.close()
    print(f"{sum(counted.values())} steps, seed {SEED}: {dict(sorted(counted.items()))}")
