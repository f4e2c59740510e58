# SPDX-License-Identifier: Apache-2.0
"""The promises of hostagent/drivers/base.py, each a test. The names say what an agent relies on."""

import random
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from bridge.core.extend import Bytes, ExtendKey, new_id
from bridge.core.inventory import GuestState
from bridge.core.messages import Order
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.devices.image import FileStrategy
from hostagent.domain import Disk, Domain, NetworkSource, SourceKind
from hostagent.drivers.base import (
    AGENT_ANSWER_MAX,
    AgentTrouble,
    GuestAgentError,
    GuestArrival,
    GuestHandle,
    HypervisorHost,
    HypervisorSession,
    ProbeFacts,
)
from hostagent.drivers.contract.factory import Ability, ContractGuest
from hostagent.drivers.contract.plugin import DISK, ContractBench, HeardEvents
from hostagent.drivers.registry import FoundDriver
from hostagent.errors import StepFailedError
from hostagent.extend import ExtendTools, extend
from hostagent.refresh import DeviceWait
from hostagent.resize import WouldShrinkError, grow

MIB = 1 << 20
ELSEWHERE = str(uuid.uuid4())


def disk_of(session: HypervisorSession, guest: ContractGuest, number: int = 0) -> Disk:
    """Return a disk of the guest as the driver shows it."""
    [disk] = shown(session, guest.server_id).disks_of(guest.volumes[number])
    return disk


def shown(session: HypervisorSession, server_id: str) -> Domain:
    """Return a guest that the driver must know."""
    domain = session.domain(server_id)
    assert domain is not None, "the driver does not know a guest that runs"
    return domain


def resize(session: HypervisorSession, guest: ContractGuest, disk: Disk, size: int) -> None:
    """Resize without the guard."""
    session.on_guest(guest.server_id, lambda handle, _wanted: handle.resize(disk, size))


def until(look: Callable[[], bool], seconds: float) -> bool:
    """Return whether it came to this in time."""
    deadline = time.monotonic() + seconds
    while not look():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_the_driver_is_found_by_its_entry_point_and_can_be_used(found_driver: FoundDriver) -> None:
    assert found_driver.driver is not None, found_driver.why_not
    assert found_driver.driver.name == found_driver.name


def test_its_probes_create_nothing_and_say_what_they_are_about(bench: ContractBench, tmp_path: Any) -> None:
    assert bench.driver.driver is not None
    probes = list(bench.driver.driver.probes(bench.settings(), ProbeFacts(root=tmp_path)))
    assert all(probe.about for probe in probes)
    assert list(tmp_path.iterdir()) == []


def test_its_capabilities_cover_the_disks_it_shows(bench: ContractBench, host: HypervisorHost) -> None:
    # What it cannot resize is refused before anything is touched, and told in `host show`.
    guest = bench.guest()
    disk = disk_of(host.session(), guest)
    can = host.capabilities
    assert can.sources
    assert can.why_not(disk) == ""
    strange = Disk(
        target="x", kind=SourceKind.NETWORK, source="x", driver_format="raw", volume_id=None,
        network=NetworkSource(protocol="no-such-protocol"),
    )  # fmt: skip
    assert can.why_not(strange)


def test_a_guest_that_runs_is_listed_and_one_that_ended_is_not(
    bench: ContractBench, session: HypervisorSession
) -> None:
    guest = bench.guest()
    listed = session.guests()
    assert listed.complete
    assert guest.server_id in listed.server_ids
    assert all(server_id == server_id.lower() for server_id in listed.server_ids)
    guest.stop()
    assert until(lambda: guest.server_id not in session.guests().server_ids, bench.patience)
    assert session.domain(guest.server_id) is None


def test_a_guest_is_shown_with_each_of_its_disks(bench: ContractBench, session: HypervisorSession) -> None:
    # A volume is found by its id, its source is the configured one, and each disk has a name of its own.
    guest = bench.guest(DISK, 2 * DISK)
    domain = shown(session, guest.server_id)
    assert (domain.server_id, domain.state, domain.saved, domain.left) == (
        guest.server_id, GuestState.ACTIVE, False, False,
    )  # fmt: skip
    assert session.state(guest.server_id) is GuestState.ACTIVE
    disks = [disk_of(session, guest, number) for number in (0, 1)]
    assert len({disk.target for disk in domain.disks}) == len(domain.disks)
    assert len({disk.alias for disk in disks if disk.alias is not None}) == len(disks)
    for disk in disks:
        assert (disk.kind, disk.driver_format, disk.encrypted) == (SourceKind.FILE, "raw", False)
        assert (disk.read_only, disk.cdrom, disk.notifies) == (False, False, True)
        assert disk.source
    assert disks[0].source != disks[1].source


def test_a_run_has_one_name_and_the_next_run_another(bench: ContractBench, session: HypervisorSession) -> None:
    # What a guest was told is known by run: a name that stays would take a new guest for a told one.
    guest = bench.guest()
    first = shown(session, guest.server_id).run
    assert first is not None
    assert shown(session, guest.server_id).run == first
    handled: list[str | None] = []
    session.on_guest(guest.server_id, lambda handle, _wanted: handled.append(handle.look().run))
    assert handled == [first]
    assert shown(session, bench.guest().server_id).run != first


def test_a_guest_of_another_host_is_not_here(session: HypervisorSession) -> None:
    assert session.domain(ELSEWHERE) is None
    assert session.state(ELSEWHERE) is None
    for call in (
        lambda: session.capacity(ELSEWHERE, "vda"),
        lambda: session.on_guest(ELSEWHERE, lambda handle, _wanted: handle.look()),
    ):
        with pytest.raises(StepFailedError) as caught:
            call()
        assert caught.value.reason is Reason.DOMAIN_ABSENT


def test_a_size_is_what_the_hypervisor_has(bench: ContractBench, session: HypervisorSession) -> None:
    guest = bench.guest(DISK, 2 * DISK + MIB)
    for number, volume_id in enumerate(guest.volumes):
        seen = session.capacity(guest.server_id, disk_of(session, guest, number).target)
        assert seen.capacity == guest.size(volume_id)
        assert seen.physical == guest.size(volume_id)


def test_a_disk_that_the_guest_has_not_is_an_error_in_words(
    bench: ContractBench, session: HypervisorSession
) -> None:
    guest = bench.guest()
    with pytest.raises(StepFailedError) as caught:
        session.capacity(guest.server_id, "no-such-disk")
    assert caught.value.detail


def test_within_a_call_everything_is_read_anew(bench: ContractBench, session: HypervisorSession) -> None:
    # The guard decides by what the disk has in this moment.
    guest = bench.guest()
    disk = disk_of(session, guest)
    sizes: list[int] = []

    def work(handle: GuestHandle, _wanted: object) -> None:
        sizes.append(handle.capacity(disk.target).capacity)
        handle.resize(disk, 2 * DISK)
        sizes.append(handle.capacity(disk.target).capacity)
        assert disk.target in {found.target for found in handle.look().disks}

    session.on_guest(guest.server_id, work)
    assert sizes == [DISK, 2 * DISK]


@pytest.mark.parametrize("more", [512, MIB, 3 * MIB + 512])
def test_a_resize_is_in_bytes(bench: ContractBench, session: HypervisorSession, more: int) -> None:
    guest = bench.guest()
    resize(session, guest, disk_of(session, guest), DISK + more)
    assert guest.size(guest.volumes[0]) == DISK + more


def test_a_resize_leaves_the_other_disks_alone(bench: ContractBench, session: HypervisorSession) -> None:
    guest = bench.guest(DISK, DISK)
    resize(session, guest, disk_of(session, guest, 1), 2 * DISK)
    assert [guest.size(volume_id) for volume_id in guest.volumes] == [DISK, 2 * DISK]


def test_a_resize_tells_the_guest(bench: ContractBench, session: HypervisorSession) -> None:
    # The virtual hardware's size alone is nothing: a guest looks when it is interrupted.
    bench.needs(Ability.SEE)
    guest = bench.guest()
    resize(session, guest, disk_of(session, guest), 2 * DISK)
    assert until(lambda: guest.seen(guest.volumes[0])[-1:] == [2 * DISK], bench.patience)


def test_a_resize_to_the_size_it_has_is_no_error_and_changes_nothing(
    bench: ContractBench, session: HypervisorSession
) -> None:
    guest = bench.guest()
    resize(session, guest, disk_of(session, guest), DISK)
    assert guest.size(guest.volumes[0]) == DISK


def test_a_driver_that_says_it_never_shrinks_never_does(bench: ContractBench, session: HypervisorSession) -> None:
    # Where it says so, the guard relies on it against a resize that crosses another one.
    guest = bench.guest()
    disk = disk_of(session, guest)
    if not session.on_guest(guest.server_id, lambda handle, _wanted: handle.never_shrinks):
        pytest.skip("unproved: the driver does not say that it never shrinks")
    with pytest.raises(StepFailedError):
        resize(session, guest, disk, DISK // 2)
    assert guest.size(guest.volumes[0]) == DISK


def test_behind_the_guard_no_size_makes_a_disk_smaller(bench: ContractBench, session: HypervisorSession) -> None:
    # The guard is the agent's; it is only as good as what the driver shows.
    guest = bench.guest()
    disk, chance, largest = disk_of(session, guest), random.Random(1), DISK
    for _ in range(24):
        size = chance.choice([0, 512, largest - 512, largest, largest + 512, DISK, chance.randrange(largest)])
        if size < largest:
            with pytest.raises(WouldShrinkError):
                grow(session, guest.server_id, disk, size - size % 512)
        else:
            grow(session, guest.server_id, disk, size)
            largest = size
        assert guest.size(guest.volumes[0]) == largest


def test_an_order_is_carried_out_and_reported(bench: ContractBench, session: HypervisorSession) -> None:
    # The agent's own work over the driver: grown, verified, and a second order finds it done.
    guest = bench.guest()
    tools = ExtendTools(
        hypervisor=session, strategies=[FileStrategy()], patience=DeviceWait(device_wait=1, nudge_every=1),
        sleep=threading.Event().wait,
    )  # fmt: skip
    outcomes = []
    for target in (2 * DISK, 2 * DISK, DISK):
        order = Order(
            attempt_id=new_id(), key=ExtendKey(guest.server_id, guest.volumes[0]), gen=1, target=Bytes(target)
        )
        report = extend(order, tools)
        outcomes.append((report.outcome, report.after))
    assert outcomes == [
        (Outcome.RESIZED, 2 * DISK), (Outcome.ALREADY, 2 * DISK), (Outcome.ALREADY, 2 * DISK),
    ]  # fmt: skip


def test_an_error_of_the_work_reaches_the_caller_and_the_session_goes_on(
    bench: ContractBench, session: HypervisorSession
) -> None:
    guest = bench.guest()
    refused = StepFailedError(Outcome.REFUSED, Reason.WOULD_SHRINK, "by the guard")

    def work(_handle: GuestHandle, wanted: Callable[[], bool]) -> None:
        assert wanted()
        raise refused

    with pytest.raises(StepFailedError) as caught:
        session.on_guest(guest.server_id, work)
    assert caught.value is refused
    assert session.domain(guest.server_id) is not None


def test_two_guests_that_share_a_volume_are_two(bench: ContractBench, session: HypervisorSession) -> None:
    bench.needs(Ability.SHARE)
    one = bench.guest()
    other = bench.guest(DISK, volumes=list(one.volumes))
    assert {one.server_id, other.server_id} <= session.guests().server_ids
    for guest in (one, other):
        assert disk_of(session, guest).volume_id == one.volumes[0]
    resize(session, one, disk_of(session, one), 2 * DISK)
    resize(session, other, disk_of(session, other), 2 * DISK)
    assert [guest.size(one.volumes[0]) for guest in (one, other)] == [2 * DISK, 2 * DISK]


def test_sessions_of_several_threads_do_not_disturb_each_other(bench: ContractBench, host: HypervisorHost) -> None:
    guest = bench.guest()
    wrong: list[object] = []

    def ask() -> None:
        session = host.session()
        try:
            for _ in range(20):
                target = disk_of(session, guest).target
                if session.capacity(guest.server_id, target).capacity != DISK:
                    wrong.append("another size")
        except BaseException as ex:  # noqa: BLE001 - told by the test's own thread
            wrong.append(ex)
        finally:
            session.close()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(bench.patience)
    assert wrong == []
    assert not any(thread.is_alive() for thread in threads)


def test_a_frozen_guest_costs_one_call_limit_and_no_other_guest(bench: ContractBench, host: HypervisorHost) -> None:
    # Every wait ends, in words; afterwards the guest is as it was, and nothing late happens to it.
    bench.needs(Ability.FREEZE)
    frozen, other = bench.guest(), bench.guest()
    session, second = host.session(), host.session()
    disk = disk_of(session, frozen)
    disk_of(second, other)
    frozen.freeze()
    began = time.monotonic()
    with pytest.raises(StepFailedError) as caught:
        session.capacity(frozen.server_id, disk.target)
    assert caught.value.reason in {Reason.HYPERVISOR_TIMED_OUT, Reason.HYPERVISOR_RAISED}
    assert time.monotonic() - began < host.limit + bench.patience / 2
    assert second.capacity(other.server_id, disk_of(second, other).target).capacity == DISK
    with pytest.raises(StepFailedError):
        grow(second, frozen.server_id, disk, 2 * DISK)
    frozen.thaw()

    def answers() -> bool:
        try:
            return session.capacity(frozen.server_id, disk.target).capacity > 0
        except StepFailedError:
            return False

    assert until(answers, bench.patience)
    grow(session, frozen.server_id, disk, 3 * DISK)
    time.sleep(0.5)
    assert frozen.size(frozen.volumes[0]) == 3 * DISK
    session.close()
    second.close()


def test_guests_that_come_and_go_are_events(bench: ContractBench, session: HypervisorSession) -> None:
    heard = HeardEvents()
    watch = session.watch(heard)
    assert watch.stands()
    assert session.watch(heard) is watch, "a watch that stands is not made anew"
    guest = bench.guest()
    assert heard.wait(lambda: guest.server_id in heard.changes, bench.patience), "it came"
    assert disk_of(session, guest).volume_id == guest.volumes[0]
    heard.changes.clear()
    guest.stop()
    assert heard.wait(lambda: guest.server_id in heard.changes, bench.patience), "it went"


def test_a_reset_says_that_the_guest_starts_again(bench: ContractBench, session: HypervisorSession) -> None:
    # It reads its disks' sizes then, and need not be told.
    bench.needs(Ability.RESET)
    guest, heard = bench.guest(), HeardEvents()
    disk_of(session, guest)
    session.watch(heard)
    guest.reset()
    arrived = (guest.server_id, GuestArrival.STARTED)
    assert heard.wait(lambda: arrived in heard.arrivals, bench.patience)


def test_a_disk_that_leaves_is_an_event_by_its_alias(bench: ContractBench, session: HypervisorSession) -> None:
    # Else another volume under its name would be taken for it.
    bench.needs(Ability.UNPLUG)
    guest, heard = bench.guest(DISK, DISK), HeardEvents()
    disk = disk_of(session, guest, 1)
    session.watch(heard)
    guest.unplug(guest.volumes[1])
    assert heard.wait(lambda: (guest.server_id, disk.alias) in heard.removals, bench.patience)
    assert shown(session, guest.server_id).disks_of(guest.volumes[1]) == ()
    with pytest.raises(StepFailedError) as caught:
        grow(session, guest.server_id, disk, 2 * DISK)
    assert caught.value.outcome is Outcome.NOT_ATTACHED


def test_an_agent_that_only_looks_cannot_resize(bench: ContractBench) -> None:
    session = bench.open(read_only=True).session()
    guest = bench.guest()
    disk = disk_of(session, guest)
    with pytest.raises(StepFailedError):
        resize(session, guest, disk, 2 * DISK)
    session.close()
    assert guest.size(guest.volumes[0]) == DISK


def test_a_secret_that_is_not_there_is_none(session: HypervisorSession) -> None:
    assert session.secret(ELSEWHERE) is None


def test_a_guest_without_an_agent_is_said_in_time(bench: ContractBench, host: HypervisorHost) -> None:
    if not host.capabilities.agent:
        pytest.skip("unproved: the driver asks no guest's agent")
    guest, session = bench.guest(), host.session()
    began = time.monotonic()
    with pytest.raises(GuestAgentError) as caught:
        session.agent(guest.server_id, {"execute": "guest-ping"}, 3.0)
    assert caught.value.why in {AgentTrouble.ABSENT, AgentTrouble.SILENT}
    assert time.monotonic() - began < host.limit + bench.patience / 2
    session.close()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b'{"return": {"version": "7.2"}}', None),
        (b'{"error": {"class": "CommandNotFound", "desc": "no such command"}}', AgentTrouble.REFUSED),
        (None, AgentTrouble.SILENT),
        (b"x" * (AGENT_ANSWER_MAX + (1 << 20)), AgentTrouble.BAD_ANSWER),
        (b"[1, 2", AgentTrouble.BAD_ANSWER),
    ],
    ids=["an answer", "an error", "silence", "a flood", "not JSON"],
)
def test_what_an_agent_answers_is_bounded_and_in_words(
    bench: ContractBench, host: HypervisorHost, answer: bytes | None, why: AgentTrouble | None
) -> None:
    # A guest writes it.
    bench.needs(Ability.AGENT)
    guest, session = bench.guest(DISK, agent=True), host.session()
    guest.agent_answers(answer)
    command = {"execute": "guest-info"}
    if why is None:
        assert session.agent(guest.server_id, command, 10.0) == {"version": "7.2"}
    else:
        with pytest.raises(GuestAgentError) as caught:
            session.agent(guest.server_id, command, 3.0)
        assert caught.value.why in {why, AgentTrouble.SILENT}
    assert disk_of(session, guest).volume_id == guest.volumes[0]
    session.close()
