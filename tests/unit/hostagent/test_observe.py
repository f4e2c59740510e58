# SPDX-License-Identifier: Apache-2.0
"""An agent that only looks: what it says of each guest, and that nothing it does touches a disk."""

from bridge.core.inventory import GuestState
from bridge.core.messages import Report
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.drivers.base import GuestArrival
from hostagent.errors import StepFailedError
from hostagent.knowledge import ToldDisks
from hostagent.observe import ObserveTools, observe
from tests.unit.hostagent.fakes import MIB, FakeDisk, FakeHypervisor, FakeTime, order

SMALL, LARGE = 64 * MIB, 128 * MIB


def look(hypervisor: FakeHypervisor, server_id: str, volume_id: str, *, wait: float = 2.0) -> Report:
    """At an order to LARGE."""
    time = FakeTime()
    eyes = ObserveTools(hypervisor=hypervisor, wait=wait, sleep=time.sleep, clock=time.clock)
    report = observe(order(server_id, volume_id, LARGE), eyes)
    assert not [call for call in hypervisor.calls if call.startswith("blockResize")]
    return report


def guest(capacity: int = SMALL, state: GuestState = GuestState.ACTIVE) -> tuple[FakeHypervisor, str, FakeDisk]:
    """One guest with one disk."""
    hypervisor, disk = FakeHypervisor(), FakeDisk(capacity=capacity)
    return hypervisor, hypervisor.add(disk, state=state), disk


def eyes_of(hypervisor: FakeHypervisor, time: FakeTime, told: ToldDisks) -> ObserveTools:
    return ObserveTools(hypervisor=hypervisor, wait=1.0, sleep=time.sleep, clock=time.clock, told=told)


def judged(hypervisor: FakeHypervisor, server_id: str, told: ToldDisks) -> None:
    """The inventory looks."""
    domain = hypervisor.domain(server_id)
    assert domain is not None
    volumes = {disk.volume_id: disk for disk in domain.disks if disk.volume_id}
    told.judge(domain, {v: hypervisor.capacity(server_id, d.target).capacity for v, d in volumes.items()})


def test_a_size_that_nova_gave_in_this_run_was_told_by_that() -> None:
    """QEMU interrupts the guest with each resize; Nova is not asked once more."""
    hypervisor, server_id, disk = guest(SMALL)
    told = ToldDisks(watches=True)
    judged(hypervisor, server_id, told)
    disk.capacity = LARGE
    report = observe(order(server_id, disk.volume_id, LARGE), eyes_of(hypervisor, FakeTime(), told))
    assert (report.outcome, report.reason) == (Outcome.ALREADY, Reason.SIZE_REACHED)
    assert (report.before, report.after) == (LARGE, LARGE)


def test_a_size_that_nova_gave_after_an_order_looked_was_told_by_that() -> None:
    """No inventory has looked before: the first order saw the guest behind."""
    hypervisor, server_id, disk = guest(SMALL)
    eyes = eyes_of(hypervisor, FakeTime(), ToldDisks(watches=True))
    assert observe(order(server_id, disk.volume_id, LARGE), eyes).reason == Reason.NOVA_NOT_THERE
    disk.capacity = LARGE
    report = observe(order(server_id, disk.volume_id, LARGE), eyes)
    assert (report.outcome, report.reason) == (Outcome.ALREADY, Reason.SIZE_REACHED)


def test_a_guest_that_may_not_have_been_told_has_nova_asked_once() -> None:
    """Restored or migrated with the size: nothing shows that its driver knows."""
    hypervisor, server_id, disk = guest(LARGE)
    told = ToldDisks(watches=True)
    eyes = eyes_of(hypervisor, FakeTime(), told)
    first, second = (observe(order(server_id, disk.volume_id, LARGE), eyes) for _ in range(2))
    assert (first.outcome, first.reason) == (Outcome.NOT_YET, Reason.GUEST_NOT_TOLD)
    assert (second.outcome, second.reason) == (Outcome.ALREADY, Reason.SIZE_REACHED)
    told.arrived(server_id, GuestArrival.CAME_BACK)
    assert observe(order(server_id, disk.volume_id, LARGE), eyes).reason == Reason.GUEST_NOT_TOLD


def test_a_guest_that_booted_with_the_size_knows_it() -> None:
    hypervisor, server_id, disk = guest(LARGE)
    told = ToldDisks(watches=True)
    told.arrived(server_id, GuestArrival.STARTED)
    report = observe(order(server_id, disk.volume_id, LARGE), eyes_of(hypervisor, FakeTime(), told))
    assert (report.outcome, report.reason) == (Outcome.ALREADY, Reason.SIZE_REACHED)


def test_what_of_the_volume_the_guest_does_not_see_is_counted() -> None:
    """A LUKS header: without it a guest that has all would be waited for, for ever."""
    hypervisor, server_id, disk = guest(LARGE - MIB)
    time = FakeTime()
    eyes = ObserveTools(
        hypervisor=hypervisor,
        wait=1.0,
        sleep=time.sleep,
        clock=time.clock,
        hidden=lambda found: MIB if found else 0,
    )
    report = observe(order(server_id, disk.volume_id, LARGE), eyes)
    assert (report.reason, report.before) == (Reason.GUEST_NOT_TOLD, LARGE)


def test_a_size_that_comes_while_it_looks_was_given_by_another() -> None:
    hypervisor, server_id, disk = guest()
    looks: list[int] = []

    def nova(_domain: object) -> None:
        looks.append(1)
        if len(looks) == 3:
            disk.capacity = LARGE

    hypervisor.between = nova
    report = look(hypervisor, server_id, disk.volume_id)
    assert (report.outcome, report.before, report.after) == (Outcome.RESIZED, SMALL, LARGE)
    assert [step.name for step in report.steps] == ["find", "look"]


def test_a_size_that_does_not_come_is_said_with_what_the_guest_sees() -> None:
    hypervisor, server_id, disk = guest()
    report = look(hypervisor, server_id, disk.volume_id)
    assert (report.outcome, report.reason) == (Outcome.NOT_YET, Reason.NOVA_NOT_THERE)
    assert (report.before, report.after) == (SMALL, SMALL)


def test_where_the_guest_is_not_running_here_is_said_as_an_agent_that_extends_says_it() -> None:
    hypervisor, server_id, disk = guest()
    assert look(hypervisor, server_id, "other").outcome is Outcome.NOT_ATTACHED
    assert look(hypervisor, "00000000-0000-0000-0000-000000000000", disk.volume_id).outcome is Outcome.NOT_HERE
    hypervisor.domains[server_id].state = GuestState.INCOMING
    assert look(hypervisor, server_id, disk.volume_id).outcome is Outcome.NOT_HERE
    hypervisor.domains[server_id].state = GuestState.OFF
    assert look(hypervisor, server_id, disk.volume_id).outcome is Outcome.GUEST_OFF


def test_a_libvirt_that_fails_is_a_report_too() -> None:
    hypervisor, server_id, disk = guest()
    hypervisor.down = StepFailedError(Outcome.HYPERVISOR_FAILED, Reason.HYPERVISOR_DOWN, "away")
    report = look(hypervisor, server_id, disk.volume_id)
    assert (report.outcome, report.detail) == (Outcome.HYPERVISOR_FAILED, "away")


def test_two_disks_under_one_volume_id_are_refused_and_never_taken_for_done() -> None:
    hypervisor = FakeHypervisor()
    one = FakeDisk(capacity=LARGE)
    server_id = hypervisor.add(one, FakeDisk(capacity=SMALL, volume_id=one.volume_id))
    assert look(hypervisor, server_id, one.volume_id).outcome is Outcome.REFUSED
