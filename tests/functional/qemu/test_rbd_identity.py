# SPDX-License-Identifier: Apache-2.0
"""An RBD image is the volume it was: another image under its name is refused until the disk is attached anew."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.core.extend import Bytes, ExtendKey, new_id
from bridge.core.messages import Order, Report
from bridge.core.outcome import Outcome
from bridge.runtime.health import Health
from hostagent.devices.guard import RememberedDevices
from hostagent.extend import ExtendTools, extend
from hostagent.identity import DeviceMemory
from tests.functional.qemu.conftest import Bench, Host
from tests.lab.ceph import POOL, CephCluster, RbdImage
from tests.lab.guest import Guest
from tests.unit.hostagent.fakes import storage_reads

pytestmark = pytest.mark.functional
MIB = 1 << 20
Image = Callable[[int], RbdImage]


def tools(bench: Bench, directory: Path) -> ExtendTools:
    """The tools of an agent that has just started, with what lies in its state directory."""
    return replace(bench.tools, guard=RememberedDevices(DeviceMemory(directory, Health()), storage_reads()))


def work(tools: ExtendTools, guest: Guest, image: RbdImage, size: int, attachment_id: str | None = None) -> Report:
    key = ExtendKey(guest.server_id, image.volume_id)
    order = Order(attempt_id=new_id(), key=key, gen=1, target=Bytes(size), attachment_id=attachment_id)
    return extend(order, tools)


def is_refused(report: Report) -> bool:
    return (report.outcome, report.reason) == (Outcome.REFUSED, "wrong_device") and "rbd-image" in report.detail


def test_another_image_under_the_name_is_refused_while_the_guest_runs(
    host: Host, bench: Bench, image: Image, ceph: CephCluster, tmp_path: Path
) -> None:
    """Renamed by a person: QEMU has the old one open, and would make it as large as the stranger."""
    disk = image(64 * MIB)
    guest = host.boot(disk)
    disk.grow(96 * MIB)
    assert work(tools(bench, tmp_path), guest, disk, 96 * MIB).outcome is Outcome.RESIZED
    guest.wait_size(96 * MIB)
    ceph.rbd("rename", f"{POOL}/{disk.name}", f"{POOL}/{disk.name}-old")
    ceph.rbd("create", "--size", f"{256 * MIB}B", f"{POOL}/{disk.name}")
    for agent in (tools(bench, tmp_path), tools(bench, tmp_path)):
        for size in (96 * MIB, 256 * MIB, 128 * MIB):
            report = work(agent, guest, disk, size)
            assert is_refused(report), report
    assert ceph.image_size(f"{disk.name}-old") == 96 * MIB


def test_an_image_made_anew_under_the_name_is_refused_until_it_is_attached_anew(
    host: Host, bench: Bench, image: Image, ceph: CephCluster, tmp_path: Path
) -> None:
    disk = image(64 * MIB)
    guest = host.define(disk)
    host.domain(guest).create()
    guest.wait_ready()
    assert work(tools(bench, tmp_path), guest, disk, 64 * MIB, "one").outcome is Outcome.ALREADY
    host.domain(guest).destroy()
    ceph.rbd("rm", "--no-progress", f"{POOL}/{disk.name}")
    ceph.rbd("create", "--size", f"{128 * MIB}B", f"{POOL}/{disk.name}")
    assert is_refused(work(tools(bench, tmp_path), guest, disk, 128 * MIB, "one")), "while it is off"
    host.domain(guest).create()
    agent = tools(bench, tmp_path)
    assert is_refused(work(agent, guest, disk, 128 * MIB, "one"))
    assert is_refused(work(agent, guest, disk, 128 * MIB))
    assert work(agent, guest, disk, 128 * MIB, "two").outcome is Outcome.ALREADY
    assert work(tools(bench, tmp_path), guest, disk, 128 * MIB).outcome is Outcome.ALREADY
