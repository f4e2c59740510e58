# SPDX-License-Identifier: Apache-2.0
"""Volumes beneath the overlay of a backup tool's snapshot, and libvirt's own commit of it afterwards."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.core.extend import Bytes, ExtendKey, new_id
from bridge.core.messages import Order, Report
from bridge.core.outcome import Outcome
from tests.functional.qemu.conftest import Bench, Host
from tests.lab.disks import Disk, LoopDevice, Qcow2File, RawFile
from tests.lab.guest import Guest
from tests.lab.waiting import until

pytestmark = pytest.mark.functional
MIB = 1 << 20
SMALL, LARGE, LARGEST = 64 * MIB, 128 * MIB, 192 * MIB
_DISK_ONLY, _NO_METADATA, _ACTIVE, _PIVOT = (
    16,
    4,
    4,
    2,
)  # VIR_DOMAIN_SNAPSHOT_CREATE_*, _BLOCK_COMMIT_, _BLOCK_JOB_ABORT_


def extend(bench: Bench, guest: Guest, disk: Disk, size: int) -> Report:
    key = ExtendKey(guest.server_id, disk.volume_id)
    return bench(Order(attempt_id=new_id(), key=key, gen=1, target=Bytes(size)))


def snapshot(domain: Any, overlay: Path) -> None:
    """What a backup tool does before it reads the volume."""
    domain.snapshotCreateXML(
        f"<domainsnapshot><disks><disk name='vda' snapshot='external'><source file='{overlay}'/></disk></disks>"
        "</domainsnapshot>",
        _DISK_ONLY | _NO_METADATA,
    )


def commit(domain: Any) -> None:
    """What it does afterwards."""
    domain.blockCommit("vda", None, None, 0, _ACTIVE)

    def ready() -> bool:
        info = domain.blockJobInfo("vda", 0)
        return bool(info) and info["cur"] == info["end"] and "ready='yes'" in domain.XMLDesc(0)

    until(ready, "the commit is ready", seconds=60)
    domain.blockJobAbort("vda", _PIVOT)


@pytest.fixture
def volume(tmp_path: Path, keep: Callable[[Any], Any], request: pytest.FixtureRequest) -> Any:
    """A volume of SMALL bytes."""
    if request.param == "rbd":
        return request.getfixturevalue("image")(SMALL)
    kinds = {"block": LoopDevice, "raw": RawFile, "qcow2": Qcow2File}
    return keep(kinds[request.param](tmp_path / "volume", SMALL))


@pytest.mark.parametrize("volume", ["block", "rbd", "raw", "qcow2"], indirect=True)
def test_the_volume_grows_beneath_its_overlay_and_libvirt_can_commit_it(
    host: Host, bench: Bench, volume: Any, tmp_path: Path
) -> None:
    """The bottom first: a commit onto a device that was not refreshed fails."""
    guest = host.boot(volume)
    domain = host.domain(guest)
    snapshot(domain, tmp_path / "overlay")
    volume.grow(LARGE)
    report = extend(bench, guest, volume, LARGE)
    assert (report.outcome, report.after) == (Outcome.RESIZED, LARGE), report
    guest.wait_size(LARGE)
    commit(domain)
    assert guest.sizes()[-1] == LARGE
    assert "backingStore type" not in domain.XMLDesc(0)
    volume.grow(LARGEST)
    report = extend(bench, guest, volume, LARGEST)
    assert (report.outcome, report.after) == (Outcome.RESIZED, LARGEST), report
    guest.wait_size(LARGEST)


@pytest.mark.parametrize("volume", ["block", "rbd"], indirect=True)
def test_an_overlay_does_not_grow_over_a_volume_that_has_not(
    host: Host, bench: Bench, volume: Any, tmp_path: Path
) -> None:
    """Else the guest writes what no commit can take."""
    guest = host.boot(volume)
    snapshot(host.domain(guest), tmp_path / "overlay")
    report = extend(bench, guest, volume, LARGE)
    assert report.outcome is Outcome.DEVICE_STALE, report
    assert guest.sizes()[-1] == SMALL


@pytest.mark.parametrize("volume", ["block"], indirect=True)
def test_a_chain_of_overlays_ends_at_the_volume(host: Host, bench: Bench, volume: Any, tmp_path: Path) -> None:
    """Two backup tools, or one that failed once."""
    guest = host.boot(volume)
    for name in ("first", "second"):
        snapshot(host.domain(guest), tmp_path / name)
    volume.grow(LARGE)
    report = extend(bench, guest, volume, LARGE)
    assert (report.outcome, report.after) == (Outcome.RESIZED, LARGE), report
    guest.wait_size(LARGE)
    commit(host.domain(guest))
    assert guest.sizes()[-1] == LARGE
