# SPDX-License-Identifier: Apache-2.0
"""The thread that tells guests: which sizes, once, not across a worker, and again after a failure."""

from collections.abc import Callable
from typing import Any

import pytest

from bridge.core.inventory import GuestState
from bridge.core.outcome import Told
from hostagent.domain import Disk, SourceKind
from hostagent.knowledge import ToldDisks
from hostagent.telling import Teller
from hostagent.workers import Orders
from tests.unit.hostagent.fakes import MIB, FakeDisk, FakeHypervisor, FakeTime

SMALL, LARGE = 64 * MIB, 128 * MIB


class FakeImages:
    """The image's size in its storage."""

    def __init__(self, size: int) -> None:
        self.size = size

    def reader(self, disk: Disk) -> Callable[[], int]:
        del disk
        return lambda: self.size

    def names(self, disk: Disk) -> frozenset[str]:
        raise AssertionError(disk)

    def luks_header(self, disk: Disk) -> int:
        raise AssertionError(disk)


class Rig:
    """One guest with these disks and its teller."""

    def __init__(self, *disks: FakeDisk, image: int = SMALL) -> None:
        self.hypervisor, self.told, self.owners, self.time = FakeHypervisor(), ToldDisks(), Orders(), FakeTime()
        self.server_id = self.hypervisor.add(*disks)
        self.reported: list[str] = []
        self.teller = Teller(
            self.hypervisor, self.told, owners=self.owners, images=FakeImages(image), hidden=lambda _disk: 0,
            on_told=self.reported.extend, clock=self.time.clock,
        )  # fmt: skip

    def judge(self) -> list[Told | None]:
        """As the inventory does, which has the teller do the rest."""
        domain = self.hypervisor.domain(self.server_id)
        assert domain is not None
        sizes = {d.volume_id: self.hypervisor.capacity(self.server_id, d.target).capacity for d in domain.disks}
        judged = self.told.judge(domain, {v: s for v, s in sizes.items() if v is not None})
        untold = [d for d in domain.disks if d.volume_id is not None and judged[d.volume_id] is Told.NO]
        self.teller.want(self.server_id, untold)
        return list(judged.values())

    def tell(self) -> None:
        self.teller.tell_one(self.server_id)

    @property
    def resizes(self) -> list[str]:
        return [call for call in self.hypervisor.calls if call.startswith("blockResize")]


def block(**more: Any) -> FakeDisk:
    return FakeDisk(kind=SourceKind.BLOCK, **more)


def image() -> FakeDisk:
    return FakeDisk(kind=SourceKind.NETWORK, path="volumes/v")


def test_a_guest_is_told_the_size_its_disk_has_once() -> None:
    rig = Rig(block(capacity=SMALL, source=SMALL))
    assert rig.judge() == [Told.NO]
    rig.tell()
    rig.tell()
    assert (rig.resizes, rig.reported) == ([f"blockResize vda {SMALL}"], [rig.server_id])
    assert rig.judge() == [Told.YES]


def test_all_disks_of_a_guest_are_told_in_one_call() -> None:
    rig = Rig(block(), block(), block())
    rig.judge()
    rig.tell()
    assert rig.judge() == [Told.YES] * 3


def test_a_device_that_is_larger_by_now_is_left_to_an_order() -> None:
    """QEMU would take all of it, and nothing has checked yet whose device that is."""
    disk = block(capacity=SMALL, source=LARGE)
    rig = Rig(disk)
    rig.judge()
    rig.tell()
    assert (rig.resizes, disk.capacity) == ([], SMALL)
    assert rig.judge() == [Told.NO]


@pytest.mark.parametrize(("size", "resizes"), [(SMALL, 1), (LARGE, 0), (SMALL - MIB, 0)])
def test_an_image_is_told_of_only_where_it_is_as_large_as_qemu_says(size: int, resizes: int) -> None:
    """QEMU would make the image itself larger or smaller."""
    rig = Rig(image(), image=size)
    rig.judge()
    rig.tell()
    assert len(rig.resizes) == resizes


@pytest.mark.parametrize(("version", "resizes"), [(9_000_000, 0), (12_003_000, 1)])
def test_a_file_is_resized_without_an_order_only_where_libvirt_forbids_to_cut_it(
    version: int, resizes: int
) -> None:
    rig = Rig(FakeDisk())
    rig.hypervisor.version = version
    domain = rig.hypervisor.domain(rig.server_id)
    assert domain is not None
    rig.teller.want(rig.server_id, domain.disks)
    rig.tell()
    assert len(rig.resizes) == resizes


def test_a_volume_that_a_worker_owns_is_left_alone_until_it_is_done() -> None:
    """An equal-size resize that crosses a growth would take the growth back."""
    disk = block()
    rig = Rig(disk)
    rig.judge()
    assert rig.owners.own(disk.volume_id)
    rig.tell()
    assert rig.resizes == []
    rig.owners.done(disk.volume_id)
    rig.tell()
    assert len(rig.resizes) == 1
    assert rig.owners.own(disk.volume_id), "it was given back"


def test_a_guest_that_is_leaving_is_told_later() -> None:
    """libvirt would hold the call back for 30 s."""
    rig = Rig(block())
    rig.judge()
    rig.hypervisor.domains[rig.server_id].job = {"type": 2, "operation": 5}
    rig.tell()
    assert rig.resizes == []
    rig.hypervisor.domains[rig.server_id].job = {"type": 0}
    rig.tell()
    assert rig.judge() == [Told.YES]


def test_one_disk_that_cannot_be_told_leaves_its_neighbours() -> None:
    bad, good = block(job=True), block()
    rig = Rig(bad, good)
    rig.judge()
    rig.tell()
    assert rig.judge() == [Told.NO, Told.YES]


def test_a_guest_that_went_off_is_not_told() -> None:
    rig = Rig(block())
    rig.judge()
    rig.hypervisor.domains[rig.server_id].state = GuestState.OFF
    rig.tell()
    assert rig.judge() == [Told.YES], "it reads the size at its start"
    rig.tell()
    assert len(rig.resizes) == 1, "and nothing is tried any more"


def test_a_guest_that_breaks_the_call_leaves_the_others_told(caplog: pytest.LogCaptureFixture) -> None:
    """An answer of libvirt that nobody has thought of."""
    bad, good = block(), block()
    rig = Rig(bad)
    other = rig.hypervisor.add(good)
    domain = rig.hypervisor.domain(other)
    assert domain is not None
    rig.judge()

    def breaks(_domain: object) -> None:
        raise ZeroDivisionError

    rig.hypervisor.just_before_resize = breaks
    rig.tell()
    rig.hypervisor.just_before_resize = lambda _domain: None
    assert "cannot be notified" in caplog.text
    rig.teller.want(other, domain.disks)
    rig.teller.tell_one(other)
    assert rig.reported == [other]
    assert rig.owners.own(bad.volume_id), "its volume was given back"


def next_in_line(rig: Rig) -> str | None:
    return rig.teller._next()


def test_a_guest_that_came_back_is_told_before_those_that_wait_since_the_agents_start() -> None:
    rig = Rig(block())
    rig.time.sleep(60)
    waiting = [rig.hypervisor.add(block()) for _ in range(3)]
    for server_id in waiting:
        domain = rig.hypervisor.domain(server_id)
        assert domain is not None
        rig.teller.want(server_id, domain.disks)
    domain = rig.hypervisor.domain(rig.server_id)
    assert domain is not None
    rig.teller.want(rig.server_id, domain.disks, came_back=True)
    assert next_in_line(rig) == rig.server_id
    rig.tell()
    assert next_in_line(rig) == waiting[0]


def test_a_guest_that_came_back_is_tried_at_once_however_often_it_failed_before() -> None:
    rig = Rig(block())
    rig.time.sleep(60)
    domain = rig.hypervisor.domain(rig.server_id)
    assert domain is not None
    rig.teller.want(rig.server_id, domain.disks)
    rig.hypervisor.domains[rig.server_id].job = {"type": 2, "operation": 5}
    for _ in range(8):
        rig.tell()
    rig.teller.want(rig.server_id, domain.disks)
    other = rig.hypervisor.add(block())
    rig.teller.want(other, domain.disks)
    assert next_in_line(rig) == other
    rig.teller.want(rig.server_id, domain.disks, came_back=True)
    assert next_in_line(rig) == rig.server_id
