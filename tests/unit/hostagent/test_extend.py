# SPDX-License-Identifier: Apache-2.0
"""One order through its steps, against a hypervisor that behaves as measured."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from bridge.core.inventory import GuestState
from bridge.core.messages import Report
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.devices.block import LocalStrategy
from hostagent.devices.image import FileStrategy
from hostagent.domain import Disk, Domain, SourceKind
from hostagent.drivers.base import DriverCapabilities, GuestArrival
from hostagent.errors import StepFailedError
from hostagent.extend import ExtendTools, extend
from hostagent.ports import Nudge
from tests.unit.hostagent.fakes import (
    MIB,
    FakeDisk,
    FakeDomain,
    FakeHypervisor,
    FakeLibvirtError,
    FakeStrategy,
    FakeTime,
    brick_failed,
    order,
    tools,
)

ABSENT = "00000000-0000-0000-0000-000000000000"


@pytest.fixture(autouse=True)
def _any_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake disks have no device under /dev; what identity says is tested beside it."""
    monkeypatch.setattr("hostagent.extend.check_identity", lambda _disk, _connection: None)


def names(report: Report) -> list[str]:
    return [step.name for step in report.steps]


def block(**more: Any) -> tuple[FakeHypervisor, str, FakeDisk]:
    disk = FakeDisk(kind=SourceKind.BLOCK, **more)
    hypervisor = FakeHypervisor()
    return hypervisor, hypervisor.add(disk), disk


def test_a_file_grows_and_the_size_is_read_back() -> None:
    """Every step is in the report, with the sizes it saw."""
    disk = FakeDisk()
    hypervisor = FakeHypervisor()
    server_id = hypervisor.add(disk)
    report = extend(order(server_id, disk.volume_id, 128 * MIB), tools(hypervisor, FileStrategy()))
    assert (report.outcome, report.reason) == (Outcome.RESIZED, "size_reached")
    assert (report.before, report.after, disk.capacity) == (64 * MIB, 128 * MIB, 128 * MIB)
    assert names(report) == ["find", "before", "refresh", "resize", "verify"]
    assert all(step.ok for step in report.steps)


def test_a_device_that_has_grown_is_given_to_the_guest() -> None:
    """The plain good case of a block device."""
    hypervisor, server_id, disk = block()
    strategy = FakeStrategy(disk, grows_to=128 * MIB)
    report = extend(order(server_id, disk.volume_id, 128 * MIB), tools(hypervisor, strategy))
    assert report.outcome is Outcome.RESIZED
    assert disk.capacity == 128 * MIB


@pytest.mark.parametrize("target", [64 * MIB, 63 * MIB, 1, 0])
def test_already_there_tells_the_guest_and_makes_nothing_larger_or_smaller(target: int) -> None:
    """Late, repeated and smaller orders end before os-brick is asked, with a resize to the size that is there."""
    hypervisor, server_id, disk = block()
    strategy = FakeStrategy(disk)
    report = extend(order(server_id, disk.volume_id, target), tools(hypervisor, strategy))
    assert (report.outcome, report.before, report.after) == (Outcome.ALREADY, 64 * MIB, 64 * MIB)
    assert strategy.refreshes == 0
    assert names(report) == ["find", "before", "tell"]
    assert disk.sizes == [64 * MIB]


@pytest.mark.parametrize("size", [64 * MIB, 128 * MIB])
def test_a_disk_whose_guest_looks_when_it_starts_is_named(size: int) -> None:
    """SATA and the like: the hardware has the size, the guest has it at its restart."""
    hypervisor, server_id, disk = block(notifies=False)
    strategy = FakeStrategy(disk, grows_to=size)
    report = extend(order(server_id, disk.volume_id, size), tools(hypervisor, strategy))
    assert report.outcome is (Outcome.RESIZED if size > 64 * MIB else Outcome.ALREADY)
    assert (report.reason, disk.capacity) == ("seen_at_restart", size)


def test_a_guest_that_started_with_the_size_has_nothing_to_wait_for() -> None:
    hypervisor, server_id, disk = block(notifies=False)
    made = tools(hypervisor, FakeStrategy(disk))
    made.told.arrived(server_id, GuestArrival.STARTED)
    report = extend(order(server_id, disk.volume_id, 64 * MIB), made)
    assert (report.outcome, report.reason) == (Outcome.ALREADY, "size_reached")


@pytest.mark.parametrize(("what", "reason"), [("read_only", "read_only"), ("cdrom", "cdrom")])
def test_what_no_hypervisor_resizes_is_said_before_anything_is_touched(what: str, reason: str) -> None:
    hypervisor, server_id, disk = block(**{what: True})
    strategy = FakeStrategy(disk, grows_to=128 * MIB)
    report = extend(order(server_id, disk.volume_id, 128 * MIB), tools(hypervisor, strategy))
    assert (report.outcome, report.reason) == (Outcome.UNSUPPORTED, reason)
    assert (strategy.refreshes, strategy.looks) == (0, 0)
    assert not [call for call in hypervisor.calls if call.startswith("blockResize")]


def test_a_saved_guest_keeps_its_extend_open() -> None:
    hypervisor, server_id, disk = block()
    hypervisor.domains[server_id].state, hypervisor.domains[server_id].saved = GuestState.OFF, True
    report = extend(order(server_id, disk.volume_id, 128 * MIB), tools(hypervisor, FakeStrategy(disk)))
    assert (report.outcome, report.reason) == (Outcome.GUEST_SAVED, "domain_saved")


def test_a_definition_that_a_migration_left_behind_is_no_guest_that_is_off() -> None:
    """Its guest runs elsewhere; `guest_off` would close the extend."""
    hypervisor, server_id, disk = block()
    hypervisor.domains[server_id].state, hypervisor.domains[server_id].left = GuestState.OFF, True
    report = extend(order(server_id, disk.volume_id, 128 * MIB), tools(hypervisor, FakeStrategy(disk)))
    assert (report.outcome, report.reason) == (Outcome.NOT_HERE, "domain_absent")


def test_a_guest_that_is_leaving_cannot_be_told_now() -> None:
    """Not `already`: the extend stays open until the guest was told."""
    hypervisor, server_id, disk = block()
    hypervisor.domains[server_id].job = {"type": 2, "operation": 5}
    report = extend(order(server_id, disk.volume_id, 64 * MIB), tools(hypervisor, FakeStrategy(disk)))
    assert (report.outcome, report.reason) == (Outcome.BUSY, "domain_job")


def test_a_larger_device_is_checked_before_its_guest_is_told() -> None:
    """QEMU takes all of the device: it is refreshed, and shown to be the volume's, first."""
    hypervisor, server_id, disk = block(source=128 * MIB)
    strategy = FakeStrategy(disk)
    report = extend(order(server_id, disk.volume_id, 64 * MIB), tools(hypervisor, strategy))
    assert names(report) == ["find", "before", "refresh", "tell"]
    assert (report.outcome, strategy.refreshes) == (Outcome.ALREADY, 1)


def test_a_device_that_is_always_a_little_smaller_gives_what_it_has() -> None:
    """Metadata on the device: the same few bytes before and after."""
    hypervisor, server_id, disk = block(capacity=48 * MIB, source=48 * MIB)
    strategy = FakeStrategy(disk, grows_to=112 * MIB)
    report = extend(order(server_id, disk.volume_id, 128 * MIB), tools(hypervisor, strategy))
    assert (report.outcome, report.reason) == (Outcome.RESIZED, "fixed_overhead")
    assert (report.after, report.overhead, disk.capacity) == (112 * MIB, 16 * MIB, 112 * MIB)


class FakeImageStrategy(FakeStrategy):
    """The same for an image."""

    def takes(self, disk: Disk, connection: Mapping[str, Any] | None) -> bool:
        del connection
        return disk.kind is SourceKind.NETWORK


def test_an_image_that_is_a_little_smaller_is_late() -> None:
    """Ceph keeps an image's own metadata elsewhere: it has all of its volume once Cinder has made it larger."""
    disk, hypervisor = FakeDisk(kind=SourceKind.NETWORK, capacity=48 * MIB, source=48 * MIB), FakeHypervisor()
    server_id = hypervisor.add(disk)
    strategy = FakeImageStrategy(disk, grows_to=112 * MIB)
    report = extend(order(server_id, disk.volume_id, 128 * MIB), tools(hypervisor, strategy))
    assert (report.outcome, report.reason, report.overhead) == (Outcome.DEVICE_STALE, "device_smaller", 0)
    assert disk.capacity == 48 * MIB


def test_a_refresh_that_takes_long_leaves_the_wait_its_time() -> None:
    """The array shows the size a few seconds after os-brick's minute."""
    hypervisor, server_id, disk = block()
    made = tools(hypervisor)
    strategy = SlowRefresh(disk, grows_to=128 * MIB, after_looks=3, time=lambda: made.sleep(60.0))
    report = extend(order(server_id, disk.volume_id, 128 * MIB), replace(made, strategies=[strategy]))
    assert report.outcome is Outcome.RESIZED


@dataclass(slots=True)
class SlowRefresh(FakeStrategy):
    """os-brick behind another process's lock."""

    time: Callable[[], bool] = lambda: False

    def refresh(self, disk: Disk, connection: Mapping[str, Any] | None) -> int | None:
        self.time()
        return FakeStrategy.refresh(self, disk, connection)


def test_a_slow_array_is_waited_for_and_nudged() -> None:
    """The new size shows after a while; the host is asked to look again meanwhile."""
    hypervisor, server_id, disk = block()
    strategy = FakeStrategy(disk, grows_to=128 * MIB, after_looks=6)
    report = extend(order(server_id, disk.volume_id, 128 * MIB), tools(hypervisor, strategy))
    assert report.outcome is Outcome.RESIZED
    assert strategy.refreshes >= 2
    assert names(report) == ["find", "before", "refresh", "wait", "resize", "verify"]


def test_a_device_that_stays_small_is_stale_and_never_resized() -> None:
    """os-brick said it is fine; both numbers are in the report."""
    hypervisor, server_id, disk = block()
    report = extend(order(server_id, disk.volume_id, 128 * MIB), tools(hypervisor, FakeStrategy(disk), wait=5))
    assert (report.outcome, report.reason) == (Outcome.DEVICE_STALE, "device_smaller")
    assert str(64 * MIB) in report.detail
    assert str(128 * MIB) in report.detail
    assert not [call for call in hypervisor.calls if call.startswith("blockResize")]
    assert sum(step.seconds for step in report.steps) == pytest.approx(5)


def test_waiting_ends_when_the_agent_stops() -> None:
    """A slow device does not hold up a shutdown."""
    hypervisor, server_id, disk = block()
    made = tools(hypervisor, FakeStrategy(disk), wait=1000)
    time = FakeTime()
    time.stopping = True
    stopping = ExtendTools(
        hypervisor=hypervisor,
        strategies=made.strategies,
        patience=made.patience,
        sleep=time.sleep,
        clock=time.clock,
    )
    report = extend(order(server_id, disk.volume_id, 128 * MIB), stopping)
    assert report.outcome is Outcome.DEVICE_STALE
    assert time.now < 1


def test_an_unknown_domain_is_not_here() -> None:
    """Neutral: another host may have it."""
    report = extend(order(ABSENT, ABSENT, MIB), tools(FakeHypervisor(), FileStrategy()))
    assert (report.outcome, report.reason) == (Outcome.NOT_HERE, "domain_absent")


def test_the_receiving_side_of_a_migration_is_not_touched() -> None:
    """The guest still runs elsewhere."""
    disk = FakeDisk()
    hypervisor = FakeHypervisor()
    server_id = hypervisor.add(disk, state=GuestState.INCOMING)
    report = extend(order(server_id, disk.volume_id, 128 * MIB), tools(hypervisor, FileStrategy()))
    assert (report.outcome, report.reason) == (Outcome.NOT_HERE, "domain_incoming")
    assert not hypervisor.calls


def test_a_volume_the_domain_does_not_have_is_not_attached() -> None:
    """The engine asks Cinder again."""
    hypervisor = FakeHypervisor()
    server_id = hypervisor.add(FakeDisk())
    report = extend(order(server_id, ABSENT, 128 * MIB), tools(hypervisor, FileStrategy()))
    assert (report.outcome, report.reason) == (Outcome.NOT_ATTACHED, "disk_absent")


def test_two_disks_with_one_volumes_id_are_refused() -> None:
    """Which of them is it? Guessing is not ours."""
    one, two = FakeDisk(volume_id=ABSENT), FakeDisk(volume_id=ABSENT)
    hypervisor = FakeHypervisor()
    server_id = hypervisor.add(one, two)
    report = extend(order(server_id, ABSENT, 128 * MIB), tools(hypervisor, FileStrategy()))
    assert (report.outcome, report.reason) == (Outcome.REFUSED, "wrong_device")
    assert {one.capacity, two.capacity} == {64 * MIB}


@pytest.mark.parametrize(
    "disk",
    [
        FakeDisk(kind=SourceKind.NETWORK),
        FakeDisk(kind=SourceKind.OTHER),
        FakeDisk(encrypted=True),
        FakeDisk(driver_format="vmdk"),
        FakeDisk(driver_format=""),
        FakeDisk(kind=SourceKind.BLOCK, encrypted=True),
        FakeDisk(kind=SourceKind.BLOCK, driver_format="qcow2"),
    ],
    ids=lambda disk: f"{disk.kind}-{disk.driver_format}-{disk.encrypted}",
)
def test_what_nobody_can_extend_here_is_unsupported(disk: FakeDisk) -> None:
    """Final, in one line, nothing touched. QEMU's LUKS would have the header's size wrong."""

    class NoBrick:
        def extend(self, protocol: str, properties: Mapping[str, Any]) -> int:
            raise AssertionError

        def rescan(self, nudge: Nudge) -> None:
            raise AssertionError

        read_anew = rescan

        def paths(self, protocol: str, properties: Mapping[str, Any]) -> list[str]:
            raise AssertionError

    hypervisor = FakeHypervisor()
    server_id = hypervisor.add(disk)
    report = extend(
        order(server_id, disk.volume_id, 128 * MIB), tools(hypervisor, LocalStrategy(NoBrick()), FileStrategy())
    )
    assert (report.outcome, report.reason) == (Outcome.UNSUPPORTED, "no_strategy")
    assert disk.capacity == 64 * MIB


def test_a_guest_that_is_off_has_its_device_refreshed() -> None:
    """The guest reads the size at its next start."""
    hypervisor, server_id, disk = block(path="/dev")
    hypervisor.domains[server_id].state = GuestState.OFF
    strategy = FakeStrategy(disk, grows_to=128 * MIB, after_looks=1)
    report = extend(order(server_id, disk.volume_id, 128 * MIB), tools(hypervisor, strategy))
    assert (report.outcome, report.reason) == (Outcome.GUEST_OFF, "domain_off")
    assert strategy.refreshes == 1


def test_a_guest_that_is_off_with_a_stale_device_stays_open() -> None:
    """`guest_off` would claim that the host side is done."""
    hypervisor, server_id, disk = block(path="/dev")
    hypervisor.domains[server_id].state = GuestState.OFF
    report = extend(order(server_id, disk.volume_id, 128 * MIB), tools(hypervisor, FakeStrategy(disk)))
    assert report.outcome is Outcome.DEVICE_STALE


def test_a_guest_that_is_off_and_not_connected_needs_nothing() -> None:
    """Connecting the volume at the next start shows its size."""
    hypervisor, server_id, disk = block(path="/no/such/device")
    hypervisor.domains[server_id].state = GuestState.OFF
    strategy = FakeStrategy(disk)
    report = extend(order(server_id, disk.volume_id, 128 * MIB), tools(hypervisor, strategy))
    assert report.outcome is Outcome.GUEST_OFF
    assert strategy.refreshes == 0


def test_a_file_of_a_guest_that_is_off_stays_open_until_it_runs() -> None:
    """QEMU grows files, and QEMU is off: closing now would leave the image too small for good."""
    disk = FakeDisk()
    hypervisor = FakeHypervisor()
    server_id = hypervisor.add(disk, state=GuestState.OFF)
    wanted = order(server_id, disk.volume_id, 128 * MIB)
    report = extend(wanted, tools(hypervisor, FileStrategy()))
    assert (report.outcome, report.reason) == (Outcome.DEVICE_STALE, "domain_off")
    hypervisor.domains[server_id].state = GuestState.ACTIVE
    assert extend(wanted, tools(hypervisor, FileStrategy())).outcome is Outcome.RESIZED


def test_a_failing_os_brick_ends_the_attempt_before_the_guest() -> None:
    """And the step says so."""
    hypervisor, server_id, disk = block()
    report = extend(
        order(server_id, disk.volume_id, 128 * MIB), tools(hypervisor, FakeStrategy(disk, fails=brick_failed()))
    )
    assert (report.outcome, report.reason) == (Outcome.BRICK_FAILED, "brick_died")
    assert (report.steps[-1].name, report.steps[-1].ok) == ("refresh", False)


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (FakeLibvirtError(1, "unable to execute 'block_resize': Device is in use"), Outcome.BUSY, Reason.BLOCK_JOB),
        (FakeLibvirtError(68, "Timed out during operation: cannot acquire state change lock"), Outcome.BUSY,
         Reason.BLOCK_JOB),
        (FakeLibvirtError(1, "client socket is closed", domain=7), Outcome.HYPERVISOR_FAILED,
         Reason.HYPERVISOR_DOWN),
        (FakeLibvirtError(1, "Cannot grow device files"), Outcome.DEVICE_STALE, Reason.CANNOT_GROW_DEVICE),
        (FakeLibvirtError(55, "domain is not running"), Outcome.HYPERVISOR_FAILED, Reason.HYPERVISOR_RAISED),
        (FakeLibvirtError(42, "Domain not found"), Outcome.NOT_HERE, Reason.DOMAIN_ABSENT),
    ],
)  # fmt: skip
def test_libvirts_errors_have_their_outcomes(error: FakeLibvirtError, outcome: Outcome, reason: Reason) -> None:
    """Code 1 is generic: the text decides."""
    disk = FakeDisk(refuse=error)
    hypervisor = FakeHypervisor()
    server_id = hypervisor.add(disk)
    report = extend(order(server_id, disk.volume_id, 128 * MIB), tools(hypervisor, FileStrategy()))
    assert (report.outcome, report.reason) == (outcome, reason.value)


def test_a_resize_that_changes_nothing_is_not_a_success() -> None:
    """libvirt said yes, the capacity says no."""
    disk = FakeDisk()
    disk.resize = lambda size: None  # type: ignore[method-assign]
    hypervisor = FakeHypervisor()
    server_id = hypervisor.add(disk)
    report = extend(order(server_id, disk.volume_id, 128 * MIB), tools(hypervisor, FileStrategy()))
    assert (report.outcome, report.reason) == (Outcome.HYPERVISOR_FAILED, "not_verified")


def test_nova_being_quicker_is_already_there() -> None:
    """It grew the disk further between our look and our resize: the guard holds, and the order is fulfilled."""
    disk = FakeDisk()
    hypervisor = FakeHypervisor()
    server_id = hypervisor.add(disk)
    looks = []

    def nova(domain: FakeDomain) -> None:
        looks.append(1)
        if len(looks) == 2:
            domain.disks["vda"].resize(256 * MIB)

    hypervisor.between = nova
    report = extend(order(server_id, disk.volume_id, 128 * MIB), tools(hypervisor, FileStrategy()))
    assert (report.outcome, report.after, disk.capacity) == (Outcome.ALREADY, 256 * MIB, 256 * MIB)
    assert names(report)[-1] == "tell"
    assert hypervisor.calls[-1] == f"blockResize vda {256 * MIB}"


def test_what_has_no_name_yet_is_an_error_and_never_escapes() -> None:
    """Uncertain, hence retried; the text of an unknown exception stays out of the report."""

    class Odd(FileStrategy):
        def refresh(self, disk: Disk, connection: Mapping[str, Any] | None) -> None:
            raise RuntimeError("secret")

    disk = FakeDisk()
    hypervisor = FakeHypervisor()
    server_id = hypervisor.add(disk)
    report = extend(order(server_id, disk.volume_id, 128 * MIB), tools(hypervisor, Odd()))
    assert (report.outcome, report.reason, report.detail) == (Outcome.ERROR, "uncertain", "RuntimeError")
    assert names(report) == ["find", "before", "refresh"]


def test_libvirt_being_away_is_said() -> None:
    """Not `not_here`: that would send the engine looking for another host."""
    hypervisor = FakeHypervisor()
    hypervisor.down = StepFailedError(Outcome.HYPERVISOR_FAILED, Reason.HYPERVISOR_DOWN, "no socket")
    report = extend(order(ABSENT, ABSENT, MIB), tools(hypervisor, FileStrategy()))
    assert (report.outcome, report.reason) == (Outcome.HYPERVISOR_FAILED, "libvirt_down")


def test_the_next_guest_of_a_shared_volume_finds_the_device_refreshed() -> None:
    """One rescan for both; a later order, a larger one, and another device are refreshed again."""
    disk = FakeDisk(kind=SourceKind.BLOCK)
    hypervisor = FakeHypervisor()
    servers = [hypervisor.add(disk), hypervisor.add(FakeDisk(disk.volume_id, kind=SourceKind.BLOCK))]
    strategy = FakeStrategy(disk, grows_to=128 * MIB)
    made, seen = tools(hypervisor, strategy), []
    for server_id in servers:
        hypervisor.domains[server_id].disks["vda"].source = 128 * MIB
        extend(order(server_id, disk.volume_id, 128 * MIB), made)
        seen.append(strategy.refreshes)
    strategy.grows_to = 256 * MIB
    strategy.after_looks = strategy.looks + 1
    extend(order(servers[0], disk.volume_id, 256 * MIB), made)
    seen.append(strategy.refreshes)
    hypervisor.domains[servers[1]].disks["vda"].path = "/dev/zero"
    hypervisor.domains[servers[1]].disks["vda"].source = 256 * MIB
    extend(order(servers[1], disk.volume_id, 256 * MIB), made)
    assert [*seen, strategy.refreshes] == [1, 1, 2, 3]


def test_other_connection_data_are_checked_by_a_refresh_of_their_own() -> None:
    """A moment ago the device was refreshed and large enough: whose it is, only a refresh with these data says."""
    hypervisor, server_id, disk = block(path="/dev/null", source=256 * MIB)
    strategy = FakeStrategy(disk)
    bench = tools(hypervisor, strategy)
    extend(order(server_id, disk.volume_id, 128 * MIB), bench)
    assert strategy.refreshes == 1
    strategy.fails = StepFailedError(Outcome.REFUSED, Reason.WRONG_DEVICE)
    disk.capacity = 64 * MIB
    other = {"driver_volume_type": "iscsi", "data": {"target_lun": 1}}
    report = extend(replace(order(server_id, disk.volume_id, 128 * MIB), connection=other), bench)
    assert report.outcome is Outcome.REFUSED
    assert disk.capacity == 64 * MIB


class LearningGuard:
    """A guard that notes what it is asked to learn."""

    def __init__(self) -> None:
        self.learned: list[str | None] = []

    def check(self, domain: Domain, disk: Disk, attachment_id: str | None = None) -> None:
        """Let every disk through."""

    def learn(
        self, domain: Domain, disk: Disk, attachment_id: str | None = None, image: frozenset[str] = frozenset()
    ) -> None:
        """Note the disk."""
        self.learned.append(disk.volume_id)


def test_a_disk_that_has_the_size_is_remembered_before_anybody_rescans_it() -> None:
    """Else a LUN that is given to another volume afterwards would be learned as this one."""
    hypervisor, server_id, disk = block()
    guard = LearningGuard()
    made = replace(tools(hypervisor, FakeStrategy(disk)), guard=guard)
    report = extend(order(server_id, disk.volume_id, 64 * MIB), made)
    assert report.outcome is Outcome.ALREADY
    assert guard.learned == [disk.volume_id]


class LateGuard(LearningGuard):
    """A guard that has another answer from the second check on: the refresh between them has shown it."""

    def __init__(self, answer: StepFailedError) -> None:
        super().__init__()
        self._answers = [answer]
        self._first = True

    def check(self, domain: Domain, disk: Disk, attachment_id: str | None = None) -> None:
        if not self._first:
            raise self._answers[0]
        self._first = False


STRANGER = StepFailedError(Outcome.REFUSED, Reason.WRONG_DEVICE, "it is naa.b; the volume was naa.a")
SILENT = StepFailedError(Outcome.DEVICE_STALE, Reason.WRONG_DEVICE, "it has no name now")


@pytest.mark.parametrize(("answer", "outcome"), [(STRANGER, Outcome.REFUSED), (SILENT, Outcome.BRICK_FAILED)])
def test_a_refresh_that_failed_and_showed_another_volume_is_refused(
    answer: StepFailedError, outcome: Outcome
) -> None:
    """os-brick may rescan and raise afterwards. A guard that cannot tell leaves the failure as it is."""
    hypervisor, server_id, disk = block()
    strategy = FakeStrategy(disk, fails=brick_failed())
    made = replace(tools(hypervisor, strategy), guard=LateGuard(answer))
    report = extend(order(server_id, disk.volume_id, 128 * MIB), made)
    assert report.outcome is outcome
    assert disk.capacity == 64 * MIB


def test_a_disk_that_the_driver_cannot_resize_is_refused_before_anything_is_touched() -> None:
    hypervisor, disk = FakeHypervisor(), FakeDisk(kind=SourceKind.BLOCK)
    server_id, strategy = hypervisor.add(disk), FakeStrategy(disk)
    made = replace(tools(hypervisor, strategy), driver=DriverCapabilities(sources=frozenset({SourceKind.FILE})))
    report = extend(order(server_id, disk.volume_id, 128 * MIB), made)
    assert (report.outcome, report.reason) == (Outcome.UNSUPPORTED, "resize_unsupported")
    assert "the hypervisor's driver cannot resize disks of this kind: block raw" in report.detail
    assert strategy.refreshes == 0
