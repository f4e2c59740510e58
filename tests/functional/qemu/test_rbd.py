# SPDX-License-Identifier: Apache-2.0
"""RBD volumes of a real Ceph: QEMU resizes an image to whatever it is told, so its true size is read first."""

import base64
from collections.abc import Callable
from typing import Any

import pytest

from bridge.core.extend import Bytes, ExtendKey, new_id
from bridge.core.messages import Order, Report
from bridge.core.outcome import Outcome
from hostagent.devices.image import QemuImages
from hostagent.errors import StepFailedError
from hostagent.resize import grow
from tests.functional.qemu.conftest import Bench, Host
from tests.lab.ceph import CephCluster, RbdImage
from tests.lab.guest import Guest

pytestmark = pytest.mark.functional
MIB = 1 << 20
Image = Callable[[int], RbdImage]


def order(guest: Guest, image: RbdImage, size: int, **data: Any) -> Order:
    connection = {"driver_volume_type": "rbd", "data": data} if data else None
    return Order(
        attempt_id=new_id(), key=ExtendKey(guest.server_id, image.volume_id), gen=1, target=Bytes(size),
        connection=connection,
    )  # fmt: skip


def ends(report: Report) -> tuple[Outcome, str]:
    return report.outcome, report.reason


@pytest.mark.parametrize("data", [{}, {"auth_enabled": True, "auth_username": "cinder"}])
def test_the_guest_sees_its_image_grow(host: Host, bench: Bench, image: Image, data: dict[str, Any]) -> None:
    """cephx, the key from libvirt's secret; with Cinder's connection data and without."""
    disk = image(64 * MIB)
    guest = host.boot(disk)
    disk.grow(128 * MIB)
    if data:
        data = {**data, "name": f"volumes/{disk.name}"}
    report = bench(order(guest, disk, 128 * MIB, **data))
    assert ends(report) == (Outcome.RESIZED, "size_reached"), report
    assert (report.before, report.after) == (64 * MIB, 128 * MIB)
    guest.wait_size(128 * MIB)
    assert disk.true_size() == 128 * MIB
    assert bench(order(guest, disk, 128 * MIB)).outcome is Outcome.ALREADY


def test_an_image_that_cinder_has_not_grown_is_left_alone(host: Host, bench: Bench, image: Image) -> None:
    """QEMU would make it larger itself; it works once Cinder's driver has."""
    disk = image(64 * MIB)
    guest = host.boot(disk)
    assert ends(bench(order(guest, disk, 128 * MIB))) == (Outcome.DEVICE_STALE, "device_smaller")
    assert disk.true_size() == 64 * MIB
    disk.grow(128 * MIB)
    assert bench(order(guest, disk, 128 * MIB)).outcome is Outcome.RESIZED
    guest.wait_size(128 * MIB)


def test_a_stale_order_does_not_cut_the_image(host: Host, bench: Bench, image: Image) -> None:
    """Cinder went on to 256 MiB, libvirt still says 64: told 128, QEMU would cut the image. It is taken in full."""
    disk = image(64 * MIB)
    guest = host.boot(disk)
    disk.grow(256 * MIB)
    report = bench(order(guest, disk, 128 * MIB))
    assert (report.outcome, report.after) == (Outcome.RESIZED, 256 * MIB)
    assert disk.true_size() == 256 * MIB
    guest.wait_size(256 * MIB)


def test_without_the_guard_the_image_is_cut(host: Host, bench: Bench, image: Image) -> None:
    """The same, without reading the image: the test above can fail."""
    disk = image(64 * MIB)
    guest = host.boot(disk)
    disk.grow(256 * MIB)
    domain = bench.session.domain(guest.server_id)
    grow(bench.session, guest.server_id, domain.disks[0], 128 * MIB)
    assert disk.true_size() == 128 * MIB


def test_two_guests_of_one_image_each_see_it(host: Host, bench: Bench, image: Image) -> None:
    """Multiattach: the second is behind by two extends and cuts nothing of what the first has."""
    disk = image(64 * MIB)
    first, second = host.boot(disk), host.boot(disk)
    disk.grow(128 * MIB)
    assert bench(order(first, disk, 128 * MIB)).outcome is Outcome.RESIZED
    disk.grow(256 * MIB)
    assert bench(order(first, disk, 256 * MIB)).outcome is Outcome.RESIZED
    assert bench(order(second, disk, 128 * MIB)).outcome is Outcome.RESIZED
    assert disk.true_size() == 256 * MIB
    for guest in (first, second):
        guest.wait_size(256 * MIB)


@pytest.mark.parametrize("connected", [True, False])
def test_a_paused_guest_and_one_that_is_off(host: Host, bench: Bench, image: Image, connected: bool) -> None:
    """Paused: it sees it when it goes on. Off: it reads the size at its start, and there is nothing to do."""
    disk = image(64 * MIB)
    data = {"name": f"volumes/{disk.name}"} if connected else {}
    guest = host.boot(disk)
    host.domain(guest).suspend()
    disk.grow(128 * MIB)
    assert bench(order(guest, disk, 128 * MIB, **data)).outcome is Outcome.RESIZED
    host.domain(guest).resume()
    guest.wait_size(128 * MIB)
    host.domain(guest).destroy()

    off = host.define(disk)
    assert ends(bench(order(off, disk, 256 * MIB, **data))) == (Outcome.DEVICE_STALE, "device_smaller")
    disk.grow(256 * MIB)
    assert ends(bench(order(off, disk, 256 * MIB, **data))) == (Outcome.GUEST_OFF, "domain_off")
    host.domain(off).create()
    off.wait_size(256 * MIB)


def test_an_image_of_another_name_than_cinders_is_refused(host: Host, bench: Bench, image: Image) -> None:
    """The domain has another image than the attachment names."""
    disk = image(64 * MIB)
    guest = host.boot(disk)
    disk.grow(128 * MIB)
    report = bench(order(guest, disk, 128 * MIB, name="volumes/volume-of-somebody-else"))
    assert ends(report) == (Outcome.REFUSED, "wrong_device")
    assert guest.sizes() == [64 * MIB]


def test_a_private_secret_leaves_the_hosts_keyring(
    host: Host, bench: Bench, image: Image, ceph: CephCluster
) -> None:
    """libvirt does not give it away; ceph.conf of the domain names a keyring that has the key."""
    disk = image(64 * MIB)
    disk.secret_id = host.secret(base64.b64decode(ceph.key()), usage="ceph", private=True)
    guest = host.boot(disk)
    assert bench.session.secret(disk.secret_id) is None
    disk.grow(128 * MIB)
    assert bench(order(guest, disk, 128 * MIB)).outcome is Outcome.RESIZED
    keyring = ceph.directory / "client.cinder.keyring"
    hidden = keyring.rename(keyring.with_suffix(".away"))
    try:
        report = bench(order(guest, disk, 256 * MIB))
    finally:
        hidden.rename(keyring)
    assert ends(report) == (Outcome.DEVICE_STALE, "image_unreadable")


def test_a_ceph_that_does_not_answer_costs_its_limit(
    host: Host, bench: Bench, image: Image, ceph: CephCluster
) -> None:
    """No worker hangs; afterwards it works."""
    disk = image(64 * MIB)
    guest = host.boot(disk)
    disk.grow(128 * MIB)
    found = bench.session.domain(guest.server_id).disks[0]
    ceph.pause()
    try:
        with pytest.raises(StepFailedError, match="qemu-img took longer"):
            QemuImages(bench.session.secret, limit=0.5).reader(found)()
    finally:
        ceph.go_on()
    assert bench(order(guest, disk, 128 * MIB)).outcome is Outcome.RESIZED


def test_the_key_is_on_no_command_line(
    host: Host, bench: Bench, image: Image, ceph: CephCluster, tmp_path: Any
) -> None:
    """What a process list would show."""
    disk = image(64 * MIB)
    guest = host.boot(disk)
    found = bench.session.domain(guest.server_id).disks[0]
    spy, said = tmp_path / "spy", tmp_path / "said"
    spy.write_text(f'#!/bin/sh\nfor a; do echo "$a" >> {said}; done; env >> {said}; exec qemu-img "$@"\n')
    spy.chmod(0o755)
    assert QemuImages(bench.session.secret, limit=5, command=[str(spy)]).reader(found)() == 64 * MIB
    assert ceph.key()[:20] not in said.read_text()
