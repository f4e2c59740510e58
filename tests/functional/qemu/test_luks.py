# SPDX-License-Identifier: Apache-2.0
"""LUKS1 that QEMU opens: the guest gets the volume less its header, the report speaks of the volume."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.core.extend import Bytes, ExtendKey, new_id
from bridge.core.messages import Order
from bridge.core.outcome import Outcome
from bridge.runtime.health import Health
from hostagent.devices.luks import hidden_bytes
from hostagent.inventory import InventoryKeeper, Touched
from tests.functional.qemu.conftest import Bench, Host
from tests.lab.ceph import RbdImage
from tests.lab.disks import LoopDevice, Qcow2File, RawFile
from tests.lab.guest import Guest
from tests.lab.luks import PASSPHRASE, Luks, luks_header, make_luks_image

pytestmark = pytest.mark.functional
MIB = 1 << 20
SMALL, LARGE = 64 * MIB, 128 * MIB


@pytest.fixture(scope="session")
def header() -> bytes:
    return luks_header()


@pytest.fixture
def encrypted(
    host: Host, header: bytes, tmp_path: Path, keep: Callable[[Any], Any], request: pytest.FixtureRequest
) -> Callable[[str], Luks]:
    """A LUKS volume of SMALL bytes: file, block or rbd."""

    def make(kind: str) -> Luks:
        volume: Any
        if kind == "rbd":
            image: Callable[[int], RbdImage] = request.getfixturevalue("image")
            volume = image(SMALL)
            volume.write(header)
        else:
            volume = keep({"file": RawFile, "block": LoopDevice}[kind](tmp_path / "disk", SMALL))
            with Path(volume.device if kind == "block" else volume.path).open("r+b") as opened:
                opened.write(header)
                opened.flush()
                os.fsync(opened.fileno())
        return Luks(volume, host.secret(PASSPHRASE, usage="volume"), len(header))

    return make


def order(guest: Guest, disk: Luks, size: int) -> Order:
    return Order(attempt_id=new_id(), key=ExtendKey(guest.server_id, disk.volume_id), gen=1, target=Bytes(size))


@pytest.mark.parametrize("kind", ["file", "block", "rbd"])
def test_the_guest_sees_the_volume_less_its_header(
    host: Host, bench: Bench, encrypted: Callable[[str], Luks], kind: str
) -> None:
    """Told the full size, QEMU would refuse (block) or make the file larger than the volume."""
    disk = encrypted(kind)
    guest = host.boot(disk)
    assert guest.sizes() == [SMALL - disk.header]
    disk.grow(LARGE)
    report = bench(order(guest, disk, LARGE))
    assert (report.outcome, report.before, report.after) == (Outcome.RESIZED, SMALL, LARGE), report
    guest.wait_size(LARGE - disk.header)
    if isinstance(disk.volume, RawFile):
        assert disk.volume.path.stat().st_size == LARGE
    if isinstance(disk.volume, RbdImage):
        assert disk.volume.true_size() == LARGE
    assert bench(order(guest, disk, LARGE)).outcome is Outcome.ALREADY
    assert guest.sizes() == [SMALL - disk.header, LARGE - disk.header]


@pytest.mark.parametrize("kind", ["file", "block", "rbd"])
def test_a_paused_guest_sees_it_when_it_goes_on(
    host: Host, bench: Bench, encrypted: Callable[[str], Luks], kind: str
) -> None:
    """As any other."""
    disk = encrypted(kind)
    guest = host.boot(disk)
    host.domain(guest).suspend()
    disk.grow(LARGE)
    assert bench(order(guest, disk, LARGE)).outcome is Outcome.RESIZED
    host.domain(guest).resume()
    guest.wait_size(LARGE - disk.header)


@pytest.mark.parametrize("kind", ["block", "rbd"])
def test_a_stale_order_takes_what_is_there(
    host: Host, bench: Bench, encrypted: Callable[[str], Luks], kind: str
) -> None:
    """The volume grew twice, the first order comes alone."""
    disk = encrypted(kind)
    guest = host.boot(disk)
    disk.grow(2 * LARGE)
    report = bench(order(guest, disk, LARGE))
    assert report.outcome is Outcome.RESIZED
    assert (report.after or 0) >= LARGE
    bench(order(guest, disk, 2 * LARGE))
    guest.wait_size(2 * LARGE - disk.header)
    if isinstance(disk.volume, RbdImage):
        assert disk.volume.true_size() == 2 * LARGE


@pytest.mark.parametrize("kind", ["file", "block", "rbd"])
def test_a_guest_that_is_off_gets_the_size_at_its_start(
    host: Host, bench: Bench, encrypted: Callable[[str], Luks], kind: str
) -> None:
    """Block and RBD are read at its start; a file is QEMU's to grow, once there is one."""
    disk = encrypted(kind)
    guest = host.define(disk)
    disk.grow(LARGE)
    outcome = bench(order(guest, disk, LARGE)).outcome
    assert outcome is (Outcome.DEVICE_STALE if kind == "file" else Outcome.GUEST_OFF)
    host.domain(guest).create()
    guest.wait_size((SMALL if kind == "file" else LARGE) - disk.header)


def test_the_inventory_says_the_volumes_size(host: Host, bench: Bench, encrypted: Callable[[str], Luks]) -> None:
    """Else every LUKS volume would look as if its guest were behind for ever."""
    disk = encrypted("file")
    guest = host.boot(disk)
    keeper = InventoryKeeper(
        bench.session, tell=lambda _: None, touched=Touched(), volume_types={}, interval=1, health=Health(),
        hidden=lambda found: hidden_bytes(found, bench.tools.images),
    )  # fmt: skip
    [seen] = keeper.look_at([guest.server_id]).domains
    assert [known.size for known in seen.disks] == [SMALL]


def test_luks_inside_of_qcow2_takes_the_size_that_the_guest_sees(
    host: Host, bench: Bench, tmp_path: Path, keep: Callable[[Any], Any]
) -> None:
    """The header lies beside the payload: nothing is hidden, libvirt takes the plain size."""
    volume = keep(Qcow2File(tmp_path / "disk", SMALL))
    volume.path.unlink()
    make_luks_image(volume.path, str(SMALL), inside="qcow2")
    disk = Luks(volume, host.secret(PASSPHRASE, usage="volume"), 0)
    guest = host.boot(disk)
    report = bench(order(guest, disk, LARGE))
    assert (report.outcome, report.before, report.after) == (Outcome.RESIZED, SMALL, LARGE), report
    guest.wait_size(LARGE)
