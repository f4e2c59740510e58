# SPDX-License-Identifier: Apache-2.0
"""Real guests on real disks; the guest itself says what it sees."""

import os
import signal
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.core.extend import Bytes, ExtendKey, new_id
from bridge.core.inventory import GuestState
from bridge.core.messages import Order, Report
from bridge.core.outcome import Outcome
from tests.functional.hostagent.conftest import GIB, Bench, Host
from tests.lab.brick import start_process
from tests.lab.disks import Disk, LoopDevice, Qcow2File, RawFile
from tests.lab.guest import Guest
from tests.lab.waiting import until

pytestmark = pytest.mark.functional
Keep = Callable[[Disk], Disk]
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices need root")
KINDS = [RawFile, Qcow2File, pytest.param(LoopDevice, marks=root_only)]


def order(guest: Guest, disk: Disk, size: int, *, gen: int = 1) -> Order:
    return Order(attempt_id=new_id(), key=ExtendKey(guest.server_id, disk.volume_id), gen=gen, target=Bytes(size))


def ends(report: Report) -> tuple[Outcome, str]:
    return report.outcome, report.reason


@pytest.mark.parametrize("kind", KINDS)
def test_the_guest_sees_its_disk_grow(host: Host, bench: Bench, keep: Keep, tmp_path: Path, kind: type) -> None:
    """From 1 to 2 GiB; the repetition is already there; nothing is printed twice."""
    disk = keep(kind(tmp_path / "disk", GIB))
    guest = host.boot(disk)
    disk.grow(2 * GIB)
    report = bench(order(guest, disk, 2 * GIB))
    assert ends(report) == (Outcome.RESIZED, "size_reached")
    assert (report.before, report.after) == (GIB, 2 * GIB)
    guest.wait_size(2 * GIB)
    assert ends(bench(order(guest, disk, 2 * GIB))) == (Outcome.ALREADY, "size_reached")
    assert guest.sizes() == [GIB, 2 * GIB]


def test_of_several_disks_only_the_one_that_was_meant_grows(host: Host, bench: Bench, tmp_path: Path) -> None:
    """The volume id decides, not the order of the disks."""
    disks = [RawFile(tmp_path / name, GIB) for name in "abc"]
    guest = host.boot(*disks)
    bench(order(guest, disks[1], 2 * GIB))
    guest.wait_size(2 * GIB, "vdb")
    assert (guest.sizes("vda"), guest.sizes("vdc")) == ([GIB], [GIB])


def test_a_paused_guest_is_extended_and_sees_it_when_it_goes_on(host: Host, bench: Bench, tmp_path: Path) -> None:
    """Paused counts as running, as for Nova."""
    disk = RawFile(tmp_path / "disk", GIB)
    guest = host.boot(disk)
    host.domain(guest).suspend()
    assert bench(order(guest, disk, 2 * GIB)).outcome is Outcome.RESIZED
    assert guest.sizes() == [GIB]
    host.domain(guest).resume()
    guest.wait_size(2 * GIB)


@root_only
def test_a_device_that_did_not_grow_is_stale_and_the_guest_is_left_alone(
    host: Host, bench: Bench, keep: Keep, tmp_path: Path
) -> None:
    """os-brick is content, the size is not; it works once the device has grown."""
    disk = keep(LoopDevice(tmp_path / "disk", GIB))
    guest = host.boot(disk)
    report = bench(order(guest, disk, 2 * GIB))
    assert ends(report) == (Outcome.DEVICE_STALE, "device_smaller")
    disk.grow(2 * GIB)
    assert bench(order(guest, disk, 2 * GIB)).outcome is Outcome.RESIZED
    guest.wait_size(2 * GIB)


@root_only
def test_a_device_that_grows_late_is_waited_for(host: Host, bench: Bench, keep: Keep, tmp_path: Path) -> None:
    """As arrays do it: the size comes while the agent waits."""
    disk = keep(LoopDevice(tmp_path / "disk", GIB))
    guest = host.boot(disk)
    bench(order(guest, disk, 2 * GIB))  # os-brick is imported now
    late = threading.Timer(0.15, disk.grow, [2 * GIB])
    late.start()
    report = bench(order(guest, disk, 2 * GIB))
    late.join()
    assert report.outcome is Outcome.RESIZED
    assert "wait" in [step.name for step in report.steps]


def test_who_is_not_here_and_what_is_not_attached(host: Host, bench: Bench, tmp_path: Path) -> None:
    """An unknown guest, a destroyed guest, an unknown disk."""
    disk = RawFile(tmp_path / "disk", GIB)
    guest = host.boot(disk)
    stranger = Order(
        attempt_id=new_id(), key=ExtendKey(str(uuid.uuid4()), disk.volume_id), gen=1, target=Bytes(2 * GIB)
    )
    assert ends(bench(stranger)) == (Outcome.NOT_HERE, "domain_absent")
    other = RawFile(tmp_path / "other", GIB)
    assert ends(bench(order(guest, other, 2 * GIB))) == (Outcome.NOT_ATTACHED, "disk_absent")
    host.domain(guest).destroy()
    assert ends(bench(order(guest, disk, 2 * GIB))) == (Outcome.NOT_HERE, "domain_absent")


@root_only
def test_a_guest_that_is_off_reads_the_devices_size_at_its_start(
    host: Host, bench: Bench, keep: Keep, tmp_path: Path
) -> None:
    """The host side is done; the claim is proved by starting it."""
    disk = keep(LoopDevice(tmp_path / "disk", GIB))
    guest = host.define(disk)
    disk.grow(2 * GIB)
    assert ends(bench(order(guest, disk, 2 * GIB))) == (Outcome.GUEST_OFF, "domain_off")
    host.domain(guest).create()
    guest.wait_size(2 * GIB)


@pytest.mark.parametrize("kind", [RawFile, Qcow2File])
def test_a_file_of_a_guest_that_is_off_is_done_once_it_runs(
    host: Host, bench: Bench, tmp_path: Path, kind: type
) -> None:
    """Started without us it would have the old size: so the order stays open."""
    disk = kind(tmp_path / "disk", GIB)
    guest = host.define(disk)
    assert ends(bench(order(guest, disk, 2 * GIB))) == (Outcome.DEVICE_STALE, "domain_off")
    host.domain(guest).create()
    guest.wait_size(GIB)
    assert bench(order(guest, disk, 2 * GIB)).outcome is Outcome.RESIZED
    guest.wait_size(2 * GIB)
    host.domain(guest).destroy()
    assert ends(bench(order(guest, disk, 2 * GIB))) == (Outcome.GUEST_OFF, "domain_off")


def test_a_block_job_makes_it_busy_and_afterwards_it_works(host: Host, bench: Bench, tmp_path: Path) -> None:
    """A real mirror job; libvirt has only its generic error for it."""
    disk = RawFile(tmp_path / "disk", GIB)
    guest = host.boot(disk)
    copy = f"<disk type='file'><source file='{tmp_path / 'copy'}'/><driver type='raw'/></disk>"
    host.domain(guest).blockCopy("vda", copy, flags=4)  # VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB
    assert bench(order(guest, disk, 2 * GIB)).outcome is Outcome.BUSY
    host.domain(guest).blockJobAbort("vda", 0)
    assert bench(order(guest, disk, 2 * GIB)).outcome is Outcome.RESIZED
    guest.wait_size(2 * GIB)


@root_only
@pytest.mark.parametrize(("stop_only", "reason"), [(True, "brick_timed_out"), (False, "brick_died")])
def test_an_os_brick_process_that_hangs_or_is_killed_costs_one_attempt(
    host: Host, bench: Bench, keep: Keep, tmp_path: Path, stop_only: bool, reason: str
) -> None:
    """The real child: stopped, it is killed within the limit; killed, it is noticed. The next order works."""
    disk = keep(LoopDevice(tmp_path / "disk", GIB))
    guest = host.boot(disk)
    disk.grow(2 * GIB)
    start_process(bench.brick)
    [pid] = bench.brick.pids()
    os.kill(pid, signal.SIGSTOP)
    reports: list[Report] = []
    caller = threading.Thread(target=lambda: reports.append(bench(order(guest, disk, 2 * GIB))))
    caller.start()
    if not stop_only:
        os.kill(pid, signal.SIGKILL)
    caller.join(120)
    assert ends(reports[0]) == (Outcome.BRICK_FAILED, reason)
    assert guest.sizes() == [GIB]
    assert bench(order(guest, disk, 2 * GIB)).outcome is Outcome.RESIZED
    guest.wait_size(2 * GIB)
    assert pid not in bench.brick.pids()


def test_a_hung_qemu_holds_up_no_other_guest_and_is_not_asked_again(
    host: Host, bench: Bench, tmp_path: Path
) -> None:
    """The call is given up on; until it returns its guest is left alone: it must not overtake a newer one."""
    sick_disk, well_disk = RawFile(tmp_path / "sick", GIB), RawFile(tmp_path / "well", GIB)
    sick, well = host.boot(sick_disk), host.boot(well_disk)
    pid = host.hypervisor.pids()[sick.name]
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert ends(bench(order(sick, sick_disk, 2 * GIB))) == (Outcome.HYPERVISOR_FAILED, "libvirt_timed_out")
        given_up = time.monotonic() - began
        assert bench(order(well, well_disk, 2 * GIB)).outcome is Outcome.RESIZED
        began = time.monotonic()
        assert ends(bench(order(sick, sick_disk, 3 * GIB))) == (Outcome.HYPERVISOR_FAILED, "libvirt_timed_out")
        assert time.monotonic() - began < given_up, "the call that hangs is not made again"
    finally:
        os.kill(pid, signal.SIGCONT)
    until(
        lambda: bench(order(sick, sick_disk, 3 * GIB)).outcome is not Outcome.HYPERVISOR_FAILED,
        "its calls return again",
    )
    sick.wait_size(3 * GIB)
    assert sick.sizes() == sorted(sick.sizes())


def test_the_inventory_says_what_the_guests_see(host: Host, bench: Bench, tmp_path: Path) -> None:
    """By the volume's id, also where there are several disks."""
    from bridge.runtime.health import Health  # noqa: PLC0415
    from hostagent.inventory import InventoryKeeper, Touched  # noqa: PLC0415

    disks: list[Disk] = [RawFile(tmp_path / "a", GIB), Qcow2File(tmp_path / "b", 2 * GIB)]
    guest = host.boot(*disks)
    keeper = InventoryKeeper(
        bench.session, tell=lambda _: None, touched=Touched(), volume_types={}, interval=1, health=Health()
    )
    [seen] = [domain for domain in keeper.look_at_all().domains if domain.server_id == guest.server_id]
    assert seen.state is GuestState.ACTIVE
    assert {(disk.volume_id, disk.size) for disk in seen.disks} == {
        (disks[0].volume_id, GIB),
        (disks[1].volume_id, 2 * GIB),
    }
