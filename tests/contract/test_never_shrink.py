# SPDX-License-Identifier: Apache-2.0
"""No order cuts a disk of a plain QEMU, whose block_resize has no guard. Its steps: tests/lab/size_walk.py."""

import os
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
from prometheus_client import CollectorRegistry

from bridge.core.messages import Report
from bridge.runtime.health import Health
from bridge.runtime.metrics import AgentMetrics
from hostagent.devices.block import LocalStrategy
from hostagent.devices.image import FileStrategy
from hostagent.devices.length import length_of
from hostagent.drivers.base import DriverTools, HypervisorHost, ProbeFacts
from hostagent.drivers.qmp.driver import DRIVER
from hostagent.drivers.qmp.settings import QmpSettings
from hostagent.extend import ExtendTools
from hostagent.ports import Nudge
from hostagent.refresh import DeviceWait
from hostagent.storage_reads import StorageReads
from tests.conftest import missing
from tests.lab.disks import LoopDevice, Qcow2File, RawFile
from tests.lab.plain_qemu import PlainQemu, have_qemu
from tests.lab.size_walk import SEED, START, WEIGHTS, SizeWalk, WalkedVolume, marks_notice, order_of, tell_all

pytestmark = pytest.mark.functional


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


class PlainVolume(WalkedVolume):
    """A disk of a plain QEMU. QEMU cannot grow a block device."""

    def __init__(self, qemu: PlainQemu, number: int, chance: random.Random) -> None:
        disk: Any = qemu.guest.disks[number]
        super().__init__(disk, chance, whole=isinstance(disk, LoopDevice))
        self._qemu, self._number = qemu, number

    def capacity(self) -> int:
        return self._qemu.size(self._number)

    def write(self, pattern: int, start: int, length: int) -> None:
        self._qemu.write_mark(self._number, pattern, start, length)

    def image(self) -> Sequence[str]:
        return ["-f", "raw", self.disk.device] if self.whole else super().image()


class PlainAgent:
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
        tell_all(self._session, self._qemu.server_id, self._tools)

    def close(self) -> None:
        if self._host is not None:
            self._host.close()

    def __call__(self, volume: WalkedVolume, size: int) -> Report:
        return order_of(self._qemu.server_id, volume, size, self._tools)


class PlainWalk(SizeWalk):
    """The steps, and those of a guest that QMP pauses, resets and starts."""

    weights: ClassVar[Mapping[str, int]] = {**WEIGHTS, "paused": 3, "reset": 2, "guest_restart": 2}

    def __init__(
        self, qemu: PlainQemu, agent: PlainAgent, volumes: Sequence[WalkedVolume], chance: random.Random
    ) -> None:
        super().__init__(agent, volumes, chance)
        self._qemu = qemu

    def paused(self, volume: WalkedVolume) -> None:
        """Extend while the guest is paused: QEMU holds its disks."""
        self._qemu.execute("stop")
        self.order(volume, self.grow(volume))
        self._qemu.execute("cont")

    def reset(self, volume: WalkedVolume) -> None:
        """Start the guest again in the same QEMU."""
        self._qemu.execute("system_reset")
        self.order(volume, volume.size)

    def guest_restart(self, volume: WalkedVolume) -> None:
        """Start another QEMU behind the same socket's name; it reads the size itself."""
        self._qemu.stop()
        self._qemu.launch()
        self.order(volume, volume.size)


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


def test_the_marks_notice_a_disk_that_is_cut(boot: Callable[[], PlainQemu]) -> None:
    qemu = boot()
    for number in (0, 1):
        cut = partial(_resize, qemu, f"node{number}")
        assert marks_notice(PlainVolume(qemu, number, random.Random(0)), cut)


def _resize(qemu: PlainQemu, node: str, size: int) -> None:
    qemu.execute("block_resize", **{"node-name": node, "size": size})


def test_no_mark_is_lost_on_a_random_walk(boot: Callable[[], PlainQemu]) -> None:
    chance, qemu = random.Random(SEED), boot()
    volumes = [PlainVolume(qemu, number, chance) for number in range(len(qemu.guest.disks))]
    agent = PlainAgent(qemu.socket.parent, qemu)
    PlainWalk(qemu, agent, volumes, chance).run()
    agent.close()
