# SPDX-License-Identifier: Apache-2.0
"""What a guest is doing when its volume grows: saved, crashed, sharing the volume, busy with its disk."""

import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from bridge.core.extend import Bytes, ExtendKey, new_id
from bridge.core.messages import Order, Report
from bridge.core.outcome import Outcome
from bridge.runtime.metrics import AgentMetrics
from hostagent.devices import all_strategies
from hostagent.extend import extend
from hostagent.ports import Nudge
from hostagent.workers import Workers
from tests.functional.qemu.conftest import Bench, Host
from tests.lab.ceph import RbdImage
from tests.lab.disks import Disk, LoopDevice, Qcow2File, RawFile
from tests.lab.guest import Guest
from tests.lab.waiting import until

pytestmark = pytest.mark.functional
MIB = 1 << 20
SMALL, LARGE = 64 * MIB, 128 * MIB
Keep = Callable[[Any], Any]
CRASHED = 6  # VIR_DOMAIN_CRASHED


def order(guest: Guest, disk: Disk, size: int) -> Order:
    return Order(attempt_id=new_id(), key=ExtendKey(guest.server_id, disk.volume_id), gen=1, target=Bytes(size))


def saved_and_grown(host: Host, bench: Bench, disk: Disk) -> Guest:
    """A guest that looks on interrupt only, saved, its volume grown, restored."""
    guest = host.define(disk)
    host.domain(guest).create()
    guest.wait_size(SMALL)
    host.domain(guest).managedSave(0)
    disk.grow(LARGE)
    report = bench(order(guest, disk, LARGE))
    assert (report.outcome, report.reason) == (Outcome.GUEST_SAVED, "domain_saved")
    host.domain(guest).create()
    return guest


def test_a_saved_guest_of_a_grown_device(host: Host, bench: Bench, keep: Keep, tmp_path: Path) -> None:
    """Outcome.GUEST_SAVED keeps it open. Restored, it has the size and does not know; the order tells it."""
    disk = keep(LoopDevice(tmp_path / "disk", SMALL))
    guest = saved_and_grown(host, bench, disk)
    assert bench(order(guest, disk, LARGE)).outcome is Outcome.ALREADY
    guest.wait_size(LARGE)
    assert guest.text().count("GUEST-READY") == 1  # it was restored, not booted


def test_a_saved_guest_of_a_grown_image(host: Host, bench: Bench, image: Callable[[int], RbdImage]) -> None:
    """RBD as well; the image is as large as Cinder made it."""
    disk = image(SMALL)
    guest = saved_and_grown(host, bench, disk)
    assert bench(order(guest, disk, LARGE)).outcome is Outcome.ALREADY
    guest.wait_size(LARGE)
    assert disk.true_size() == LARGE
    assert guest.text().count("GUEST-READY") == 1  # it was restored, not booted


@pytest.mark.parametrize("kind", [RawFile, Qcow2File])
def test_the_extend_of_a_saved_guests_file_stays_open(host: Host, bench: Bench, tmp_path: Path, kind: type) -> None:
    """QEMU grows the file, and is away: open until the guest is restored."""
    disk = kind(tmp_path / "disk", SMALL)
    guest = saved_and_grown(host, bench, disk)
    assert bench(order(guest, disk, LARGE)).outcome is Outcome.RESIZED
    guest.wait_size(LARGE)


def test_a_volume_attached_to_a_running_guest(host: Host, bench: Bench, tmp_path: Path) -> None:
    """Attached, extended, detached, and attached again under the same name: each size is the volume's own."""
    root, disk = RawFile(tmp_path / "root", SMALL), RawFile(tmp_path / "disk", SMALL)
    guest = host.boot(root, hotplug=True)
    for printed, size in ((1, LARGE), (3, 2 * LARGE)):
        host.domain(guest).attachDevice(disk.xml("vdb"))
        until(lambda printed=printed: len(guest.sizes("vdb")) == printed, "the guest has the volume")  # type: ignore[misc]
        assert bench(order(guest, disk, size)).outcome is Outcome.RESIZED
        guest.wait_size(size, "vdb")
        host.domain(guest).detachDevice(disk.xml("vdb"))
        until(lambda: disk.volume_id not in host.domain(guest).XMLDesc(0), "the guest has let go of the volume")
        assert bench(order(guest, disk, 2 * size)).outcome is Outcome.NOT_ATTACHED
    assert guest.sizes("vdb") == [SMALL, LARGE, LARGE, 2 * LARGE]
    assert guest.sizes("vda") == [SMALL]


def test_a_file_that_grew_while_its_guest_was_saved(host: Host, bench: Bench, tmp_path: Path) -> None:
    """Its backend made it longer; the order finds the size there and tells the guest."""
    disk = RawFile(tmp_path / "disk", SMALL)
    guest = host.define(disk)
    host.domain(guest).create()
    guest.wait_size(SMALL)
    host.domain(guest).managedSave(0)
    os.truncate(disk.path, LARGE)
    host.domain(guest).create()
    assert bench(order(guest, disk, LARGE)).outcome is Outcome.ALREADY
    guest.wait_size(LARGE)
    assert disk.path.stat().st_size == LARGE


def test_a_guest_whose_qemu_died_sees_the_size_at_its_next_start(
    host: Host, bench: Bench, keep: Keep, tmp_path: Path
) -> None:
    """Libvirt calls it shut off, crashed; it reads the size at its next start."""
    disk = keep(LoopDevice(tmp_path / "disk", SMALL))
    guest = host.define(disk)
    host.domain(guest).create()
    guest.wait_size(SMALL)
    os.kill(host.daemon.pids()[guest.name], signal.SIGKILL)
    until(lambda: not host.domain(guest).isActive(), "libvirt notices")
    disk.grow(LARGE)
    assert bench(order(guest, disk, LARGE)).outcome is Outcome.GUEST_OFF
    host.domain(guest).create()
    guest.wait_size(LARGE)


class SharedDevice(LoopDevice):
    """A multiattach volume, as Nova lets two guests open it."""

    def xml(self, target: str) -> str:
        """The <disk> element."""
        return LoopDevice.xml(self, target).replace("</disk>", "<shareable/></disk>")


class CountingBrick:
    """os-brick, counted."""

    def __init__(self, brick: Any) -> None:
        self._brick = brick
        self.extends: list[str] = []

    def extend(self, protocol: str, properties: Any) -> int:
        self.extends.append(protocol)
        return int(self._brick.extend(protocol, properties))

    def rescan(self, nudge: Nudge) -> None:
        self._brick.rescan(nudge)

    def read_anew(self, nudge: Nudge) -> None:
        self._brick.read_anew(nudge)

    def paths(self, protocol: str, properties: Any) -> Sequence[str]:
        return list(self._brick.paths(protocol, properties))


def test_two_guests_share_a_device_one_rescan_and_each_sees_it(
    host: Host, bench: Bench, keep: Keep, tmp_path: Path
) -> None:
    """Their orders come together, through a real worker."""
    disk = keep(SharedDevice(tmp_path / "disk", SMALL))
    first, second = host.boot(disk), host.boot(disk)
    disk.grow(LARGE)
    brick = CountingBrick(bench.brick)
    reports: list[Report] = []
    came = threading.Semaphore(0)

    def take(more: Sequence[Report]) -> None:
        reports.extend(more)
        for _ in more:
            came.release()

    class Tool:
        def __init__(self) -> None:
            self._tools = replace(bench.tools, strategies=all_strategies(brick))

        def __call__(self, order: Order) -> Report:
            return extend(order, self._tools)

        def close(self) -> None:
            """The bench closes what it made."""

    workers = Workers(
        2, make_tool=Tool, report=take, stopping=threading.Event(), metrics=AgentMetrics(CollectorRegistry())
    )
    workers.start()
    workers.submit([order(guest, disk, LARGE) for guest in (first, second, first, second)])
    for _ in range(4):
        assert came.acquire(timeout=120)
    workers.stop()
    assert workers.join(120)
    assert {report.outcome for report in reports} == {Outcome.RESIZED}
    assert brick.extends == ["LOCAL"]
    for guest in (first, second):
        guest.wait_size(LARGE)


def test_a_block_job_on_an_image_makes_it_busy(
    host: Host, bench: Bench, image: Callable[[int], RbdImage], tmp_path: Path
) -> None:
    """A real mirror of an RBD disk; afterwards it works, and nothing was cut."""
    disk = image(SMALL)
    guest = host.boot(disk)
    copy = f"<disk type='file'><source file='{tmp_path / 'copy'}'/><driver type='raw'/></disk>"
    host.domain(guest).blockCopy("vda", copy, flags=4)  # VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB
    disk.grow(LARGE)
    assert bench(order(guest, disk, LARGE)).outcome is Outcome.BUSY
    host.domain(guest).blockJobAbort("vda", 0)
    assert bench(order(guest, disk, LARGE)).outcome is Outcome.RESIZED
    guest.wait_size(LARGE)
    assert disk.true_size() == LARGE


def test_a_panicked_guest_is_told_and_sees_it_after_a_reset(
    host: Host, bench: Bench, keep: Keep, tmp_path: Path
) -> None:
    """QEMU holds it and its disk (on_crash preserve): it is told, and sees it when it is reset."""
    disk = keep(LoopDevice(tmp_path / "disk", SMALL))
    guest = host.boot(disk, panics=True)
    domain = host.domain(guest)
    until(lambda: domain.state()[0] == CRASHED, "libvirt calls it crashed")
    disk.grow(LARGE)
    assert bench(order(guest, disk, LARGE)).outcome is Outcome.RESIZED
    domain.reset()
    domain.resume()
    guest.wait_size(LARGE)
