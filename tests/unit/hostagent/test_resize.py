# SPDX-License-Identifier: Apache-2.0
"""The guard in front of blockResize."""

from typing import Any

import pytest

from bridge.core.outcome import Outcome
from hostagent.domain import Disk, SourceKind
from hostagent.drivers.libvirt.guest import resize_flags
from hostagent.errors import StepFailedError
from hostagent.resize import WouldShrinkError, grow, whole_sectors
from tests.unit.hostagent.fakes import MIB, FakeDisk, FakeDomain, FakeHypervisor


def made(disk: FakeDisk) -> tuple[FakeHypervisor, str, Disk]:
    hypervisor = FakeHypervisor()
    server_id = hypervisor.add(disk)
    domain = hypervisor.domain(server_id)
    assert domain is not None
    return hypervisor, server_id, domain.disks[0]


def resizes(hypervisor: FakeHypervisor) -> list[str]:
    return [call for call in hypervisor.calls if call.startswith("blockResize")]


def test_the_fake_is_as_dangerous_as_libvirt() -> None:
    """Else every test below would pass without a guard."""
    disk = FakeDisk(capacity=64 * MIB)
    hypervisor, server_id, seen = made(disk)
    hypervisor.on_guest(server_id, lambda guest, _: guest.resize(seen, 1))
    assert disk.capacity == 512


@pytest.mark.parametrize("size", [0, 1, 512, 63 * MIB, 64 * MIB - 512, -1, -64 * MIB])
@pytest.mark.parametrize("driver_format", ["raw", "qcow2"])
def test_a_smaller_size_is_refused_and_libvirt_is_not_asked(size: int, driver_format: str) -> None:
    """Zero and negative sizes are smaller sizes."""
    disk = FakeDisk(driver_format=driver_format)
    hypervisor, server_id, target = made(disk)
    with pytest.raises(WouldShrinkError) as caught:
        grow(hypervisor, server_id, target, size)
    assert caught.value.outcome is Outcome.REFUSED
    assert disk.capacity == 64 * MIB
    assert not resizes(hypervisor)


def test_a_disk_that_grew_since_it_was_looked_at_is_safe() -> None:
    """The capacity is read again in the moment before: somebody else made it 4 GiB meanwhile."""
    disk = FakeDisk()
    hypervisor, server_id, target = made(disk)

    def somebody_else(domain: FakeDomain) -> None:
        domain.disks["vda"].capacity = domain.disks["vda"].source = 4096 * MIB

    hypervisor.between = somebody_else
    with pytest.raises(WouldShrinkError):
        grow(hypervisor, server_id, target, 128 * MIB)
    assert disk.capacity == 4096 * MIB


@pytest.mark.parametrize("operation", [2, 5, 6, 8])
def test_a_guest_that_is_leaving_is_busy_before_libvirt_makes_the_worker_wait(operation: int) -> None:
    """Saved, migrated, frozen for a snapshot, dumped. A backup job lets a resize through."""
    hypervisor, server_id, target = made(FakeDisk())
    domain = hypervisor.domains[server_id]
    domain.job = {"type": 2, "operation": operation}
    with pytest.raises(StepFailedError) as caught:
        grow(hypervisor, server_id, target, 128 * MIB)
    assert (caught.value.outcome, caught.value.reason) == (Outcome.BUSY, "domain_job")
    assert not resizes(hypervisor)
    domain.job = {"type": 2, "operation": 9}
    assert grow(hypervisor, server_id, target, 128 * MIB).asked


def test_the_same_size_is_nothing_to_do() -> None:
    """No call for a duplicate that slipped through."""
    hypervisor, server_id, target = made(FakeDisk())
    assert grow(hypervisor, server_id, target, 64 * MIB).asked is False
    assert not resizes(hypervisor)


def test_sizes_are_bytes_and_whole_sectors() -> None:
    """Without the flag libvirt would read KiB and make 1 GiB of a MiB."""
    disk = FakeDisk()
    hypervisor, server_id, target = made(disk)
    grow(hypervisor, server_id, target, 64 * MIB + 1)
    assert disk.capacity == 64 * MIB + 512
    assert [whole_sectors(n) for n in (1, 512, 513)] == [512, 512, 1024]


def test_a_raw_file_that_is_longer_already_is_not_cut() -> None:
    """QEMU would truncate it to the smaller size, though the guest never saw the rest."""
    disk = FakeDisk(source=256 * MIB)
    hypervisor, server_id, target = made(disk)
    grow(hypervisor, server_id, target, 128 * MIB)
    assert (disk.capacity, disk.source) == (256 * MIB, 256 * MIB)


def test_a_qcow2_files_length_says_nothing() -> None:
    """Its `physical` is the space in use, metadata included."""
    disk = FakeDisk(driver_format="qcow2", source=256 * MIB)
    hypervisor, server_id, target = made(disk)
    grow(hypervisor, server_id, target, 128 * MIB)
    assert disk.capacity == 128 * MIB


def test_a_block_device_takes_what_it_has() -> None:
    """QEMU reads the device's size, whatever smaller size it is told."""
    disk = FakeDisk(kind=SourceKind.BLOCK, source=200 * MIB)
    hypervisor, server_id, target = made(disk)
    assert grow(hypervisor, server_id, target, 128 * MIB).before == 64 * MIB
    assert disk.capacity == 200 * MIB


RBD: dict[str, Any] = {"kind": SourceKind.NETWORK, "driver_format": "raw"}


@pytest.mark.parametrize(("image", "grown"), [(128, 128), (256, 256)])
def test_an_image_is_taken_as_large_as_it_is(image: int, grown: int) -> None:
    """Cinder has grown it to what was asked for, or further: the smaller size would cut it."""
    disk = FakeDisk(**RBD, source=image * MIB)
    hypervisor, server_id, target = made(disk)
    grow(hypervisor, server_id, target, 128 * MIB, image_size=lambda: disk.source)
    assert (disk.capacity, disk.source) == (grown * MIB, image * MIB)


def test_an_image_below_the_size_is_not_touched() -> None:
    """Cinder makes volumes larger, not QEMU."""
    disk = FakeDisk(**RBD, source=127 * MIB)
    hypervisor, server_id, target = made(disk)
    with pytest.raises(StepFailedError) as caught:
        grow(hypervisor, server_id, target, 128 * MIB, image_size=lambda: disk.source)
    assert caught.value.outcome is Outcome.DEVICE_STALE
    assert not resizes(hypervisor)


def test_an_image_is_read_after_the_capacity_and_before_the_resize() -> None:
    """Nothing slow lies between the two that count."""
    disk = FakeDisk(**RBD, source=128 * MIB)
    hypervisor, server_id, target = made(disk)

    def read() -> int:
        hypervisor.calls.append("image")
        return disk.source

    grow(hypervisor, server_id, target, 128 * MIB, image_size=read)
    assert hypervisor.calls == ["blockInfo vda", "image", f"blockResize vda {128 * MIB}"]


@pytest.mark.parametrize("header", [512, 2_068_480])
def test_a_header_is_no_part_of_what_the_guest_gets(header: int) -> None:
    """QEMU adds it: told the volume's size, it would make the file larger than the volume."""
    disk = FakeDisk(capacity=64 * MIB - header, source=64 * MIB)
    hypervisor, server_id, target = made(disk)
    grow(hypervisor, server_id, target, 128 * MIB, header=header)
    assert disk.capacity == 128 * MIB - header


@pytest.mark.parametrize(("version", "flags"), [(9_000_000, 1), (12_002_999, 1), (12_003_000, 5), (13_001_000, 5)])
def test_a_libvirt_that_can_is_told_never_to_shrink(version: int, flags: int) -> None:
    """An older one refuses the whole call for a flag it does not know; the fake does as well."""
    disk = FakeDisk()
    hypervisor, server_id, target = made(disk)
    hypervisor.version = version
    assert resize_flags(version) == flags
    assert grow(hypervisor, server_id, target, 128 * MIB).asked
    assert disk.capacity == 128 * MIB


@pytest.mark.parametrize("version", [9_000_000, 12_003_000])
def test_the_second_belt_holds_where_the_first_is_too_early(version: int) -> None:
    """Somebody grows the disk between the look and the resize: only libvirt itself can notice."""
    disk = FakeDisk()
    hypervisor, server_id, target = made(disk)
    hypervisor.version = version

    def somebody_else(domain: FakeDomain) -> None:
        domain.disks["vda"].capacity = domain.disks["vda"].source = 4096 * MIB

    hypervisor.just_before_resize = somebody_else
    if version < 12_003_000:
        grow(hypervisor, server_id, target, 128 * MIB)
        assert disk.capacity == 128 * MIB  # the cut that only a newer libvirt prevents
        return
    with pytest.raises(StepFailedError) as caught:
        grow(hypervisor, server_id, target, 128 * MIB)
    assert (caught.value.outcome, disk.capacity) == (Outcome.REFUSED, 4096 * MIB)


@pytest.mark.parametrize("kind", list(SourceKind)[:3])
def test_another_disk_under_the_same_name_is_left_alone(kind: SourceKind) -> None:
    """The volume was detached while its device was waited for, and a smaller one attached in its place."""
    other = FakeDisk(kind=kind, capacity=32 * MIB, source=32 * MIB)
    hypervisor, server_id, disk = made(FakeDisk(kind=kind))
    hypervisor.domains[server_id].disks["vda"] = other
    with pytest.raises(StepFailedError) as caught:
        grow(hypervisor, server_id, disk, 128 * MIB)
    assert caught.value.outcome is Outcome.NOT_ATTACHED
    assert not resizes(hypervisor)
    assert other.sizes == []


def test_a_disk_replaced_while_its_image_was_looked_at_is_left_alone() -> None:
    """Asking Ceph takes seconds, between the guard and the resize."""
    other = FakeDisk(kind=SourceKind.NETWORK, capacity=32 * MIB, source=32 * MIB)
    hypervisor, server_id, disk = made(FakeDisk(kind=SourceKind.NETWORK))

    def look() -> int:
        hypervisor.domains[server_id].disks["vda"] = other
        return 128 * MIB

    with pytest.raises(StepFailedError) as caught:
        grow(hypervisor, server_id, disk, 128 * MIB, image_size=look)
    assert caught.value.outcome is Outcome.NOT_ATTACHED
    assert other.sizes == []
