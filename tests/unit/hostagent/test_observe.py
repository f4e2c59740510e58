# SPDX-License-Identifier: Apache-2.0
"""An agent that only looks: what it says of each guest, and that nothing it does touches a disk."""

from bridge.core.messages import GuestState, Report
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.errors import StepFailedError
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


def test_a_guest_that_has_the_size_closes_the_extend() -> None:
    hypervisor, server_id, disk = guest(LARGE)
    report = look(hypervisor, server_id, disk.volume_id)
    assert (report.outcome, report.before, report.after) == (Outcome.ALREADY, LARGE, LARGE)


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
    assert (report.outcome, report.before) == (Outcome.ALREADY, LARGE)


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
    hypervisor.down = StepFailedError(Outcome.LIBVIRT_FAILED, Reason.LIBVIRT_DOWN, "away")
    report = look(hypervisor, server_id, disk.volume_id)
    assert (report.outcome, report.detail) == (Outcome.LIBVIRT_FAILED, "away")


def test_two_disks_under_one_volume_id_are_refused_and_never_taken_for_done() -> None:
    hypervisor = FakeHypervisor()
    one = FakeDisk(capacity=LARGE)
    server_id = hypervisor.add(one, FakeDisk(capacity=SMALL, volume_id=one.volume_id))
    assert look(hypervisor, server_id, one.volume_id).outcome is Outcome.REFUSED
