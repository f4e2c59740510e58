# SPDX-License-Identifier: Apache-2.0
"""What a host has, as it is told."""

import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from bridge.core.extend import Bytes
from bridge.core.inventory import DiskSeen, GuestState, Inventory
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from bridge.runtime.health import Health
from bridge.runtime.retry import Backoff
from hostagent.domain import Domain
from hostagent.drivers.base import Capacity, GuestEvents, GuestList
from hostagent.drivers.libvirt.watch import LibvirtEvents
from hostagent.errors import NotAskedError, StepFailedError
from hostagent.inventory import DeviceWatch, InventoryKeeper, Touched
from tests.unit.hostagent.fakes import MIB, FakeDisk, FakeHypervisor

HEALTH = "hostagent.hypervisor"
HUNG = StepFailedError(Outcome.HYPERVISOR_FAILED, Reason.HYPERVISOR_TIMED_OUT)
AWAY = StepFailedError(Outcome.HYPERVISOR_FAILED, Reason.HYPERVISOR_DOWN, "no socket")


class FakeConnection:
    def __init__(self, hypervisor: FakeHypervisor) -> None:
        self._hypervisor = hypervisor
        self.events: dict[int, Callable[..., None]] = {}
        self.alive = 1

    def listAllDomains(self, _flags: int) -> list[Any]:  # noqa: N802
        return [named(server_id) for server_id in self._hypervisor.domains]

    def domainEventRegisterAny(self, _domain: None, event: int, call: Callable[..., None], _o: None) -> None:  # noqa: N802
        self.events[event] = call

    def isAlive(self) -> int:  # noqa: N802
        return self.alive


def named(server_id: str) -> Any:
    class Named:
        def UUIDString(self) -> str:  # noqa: N802
            return server_id

    return Named()


class Libvirt:
    """A session on the fake hypervisor."""

    def __init__(self, hypervisor: FakeHypervisor) -> None:
        self.hypervisor = hypervisor
        self.connection = FakeConnection(hypervisor)
        self.away = 0
        self.hung: set[str] = set()
        self.no_state: set[str] = set()
        self.no_sizes: StepFailedError | None = None
        self.unlisted: frozenset[str] = frozenset()
        self.watched: FakeWatch | None = None

    def domain(self, server_id: str) -> Domain | None:
        if server_id in self.hung:
            raise HUNG
        return self.hypervisor.domain(server_id)

    def state(self, server_id: str) -> GuestState | None:
        if server_id in self.no_state:
            raise HUNG
        found = self.hypervisor.domain(server_id)
        return found.state if found is not None else None

    def capacity(self, server_id: str, target: str) -> Capacity:
        if self.no_sizes is not None:
            raise self.no_sizes
        return self.hypervisor.capacity(server_id, target)

    def guests(self) -> GuestList:
        listed = frozenset(self.on_connection(lambda now: [d.UUIDString() for d in now.listAllDomains(0)]))
        return GuestList(server_ids=listed - self.unlisted, complete=not self.unlisted)

    def watch(self, events: GuestEvents) -> "FakeWatch":
        def register(connection: FakeConnection) -> FakeWatch:
            if self.watched is None or self.watched.connection is not connection:
                self.watched = FakeWatch(self, connection, events)
            return self.watched

        watch: FakeWatch = self.on_connection(register)
        return watch

    def on_connection(self, work: Callable[[Any], Any]) -> Any:
        if self.away > 0:
            self.away -= 1
            raise AWAY
        return work(self.connection)


class FakeWatch:
    """Events of one connection."""

    def __init__(self, libvirt: Libvirt, connection: FakeConnection, events: GuestEvents) -> None:
        self.connection = connection
        self._libvirt = libvirt
        LibvirtEvents(connection, events)

    def stands(self) -> bool:
        return self._libvirt.on_connection(lambda now: now is self.connection and bool(now.isAlive())) is True


def keeper(
    libvirt: Libvirt, devices: DeviceWatch | None = None
) -> tuple[InventoryKeeper, list[Inventory], Touched, Health]:
    told: list[Inventory] = []
    touched, health = Touched(), Health()
    made = InventoryKeeper(
        libvirt, tell=told.append, touched=touched, volume_types={"nfs": "", "rbd": "no"}, interval=1000,
        health=health, backoff=Backoff(first=0.001, cap=0.002), devices=devices,
    )  # fmt: skip
    return made, told, touched, health


def test_every_volume_of_every_domain_with_the_size_its_guest_sees() -> None:
    """Disks that are no volumes are left out; a guest that is off sees no size."""
    hypervisor = FakeHypervisor()
    disk, local = FakeDisk(source=128 * MIB), FakeDisk(volume_id=None)  # type: ignore[arg-type]
    on, off = hypervisor.add(disk, local), hypervisor.add(FakeDisk(), state=GuestState.OFF)
    made, *_ = keeper(Libvirt(hypervisor))
    seen = made.look_at_all()
    assert (seen.full, seen.capabilities, seen.unsupported) == (True, ("nfs",), {"rbd": "no"})
    by_id = {domain.server_id: domain for domain in seen.domains}
    assert by_id[on].disks == (DiskSeen(volume_id=disk.volume_id, size=Bytes(disk.capacity)),)
    assert (by_id[off].state, by_id[off].disks[0].size) == (GuestState.OFF, None)


def test_a_guest_that_cannot_be_read_leaves_the_rest_of_the_host_whole() -> None:
    """It is listed with its state, so the host keeps it; a guest without even that makes no list a whole one."""
    hypervisor = FakeHypervisor()
    disk = FakeDisk()
    good, strange = hypervisor.add(disk), hypervisor.add(FakeDisk())
    libvirt = Libvirt(hypervisor)
    libvirt.hung = {strange}
    made, *_ = keeper(libvirt)
    seen = {domain.server_id: domain for domain in made.look_at_all().domains}
    assert [found.volume_id for found in seen[good].disks] == [disk.volume_id]
    assert (seen[strange].state, seen[strange].disks) == (GuestState.ACTIVE, ())
    assert strange in made._words()
    libvirt.no_state = {strange}
    listed = made.look_at_all()
    assert (listed.full, [domain.server_id for domain in listed.domains]) == (False, [good])
    libvirt.hung, libvirt.no_state = set(), set()
    assert made.look_at_all().full
    assert made._words() == "ok"


def test_a_list_with_gaps_says_of_no_guest_that_it_left() -> None:
    """A driver that could not ask one of its guests who it is."""
    hypervisor = FakeHypervisor()
    here, silent = hypervisor.add(FakeDisk()), hypervisor.add(FakeDisk())
    libvirt = Libvirt(hypervisor)
    made, *_ = keeper(libvirt)
    assert made.look_at_all().full
    libvirt.unlisted = frozenset({silent})
    listed = made.look_at_all()
    assert (listed.full, listed.gone) == (False, ())
    assert [domain.server_id for domain in listed.domains] == [here]
    assert silent in made._known  # a size that cannot be read later is still what it was


def test_a_named_domain_that_is_gone_is_told_as_gone() -> None:
    """A change, not a whole inventory."""
    hypervisor = FakeHypervisor()
    here, gone = hypervisor.add(FakeDisk()), str(uuid.uuid4())
    made, *_ = keeper(Libvirt(hypervisor))
    seen = made.look_at({here, gone})
    assert (seen.full, seen.gone, [d.server_id for d in seen.domains]) == (False, (gone,), [here])


def test_each_look_ends_with_the_devices_of_its_guests_written() -> None:
    class Devices:
        def __init__(self) -> None:
            self.done: list[str] = []

        def observe_host(self, _server_ids: frozenset[str]) -> None:
            self.done.append("host")

        def observe(self, domain: Domain, _detached: object = ()) -> None:
            self.done.append(domain.server_id)

        def write_observed(self) -> None:
            self.done.append("written")

    hypervisor = FakeHypervisor()
    servers = sorted(hypervisor.add(FakeDisk()) for _ in range(2))
    devices = Devices()
    made, _, _, _ = keeper(Libvirt(hypervisor), devices)
    made.look_at_all()
    made.look_at(servers[:1])
    assert devices.done == ["host", *servers, "written", servers[0], "written"]
    hypervisor.down = AWAY
    with pytest.raises(StepFailedError):
        made.look_at_all()
    assert devices.done[-1] == "written", "also of a look that ends early"


def test_a_hung_guest_hides_no_other_and_does_not_vanish() -> None:
    """Left out of a full inventory it would count as gone."""
    hypervisor = FakeHypervisor()
    one, other = hypervisor.add(FakeDisk()), hypervisor.add(FakeDisk())
    libvirt = Libvirt(hypervisor)
    made, *_ = keeper(libvirt)
    made.look_at_all()
    libvirt.hung.add(one)
    assert {domain.server_id for domain in made.look_at_all().domains} == {one, other}


def test_a_size_that_cannot_be_read_is_what_it_was() -> None:
    """Hung, or not asked since too many others hang: a guest whose size was never read has none."""
    hypervisor = FakeHypervisor()
    disk, other = FakeDisk(), FakeDisk()
    one = hypervisor.add(disk)
    libvirt = Libvirt(hypervisor)
    made, *_ = keeper(libvirt)
    made.look_at_all()
    two = hypervisor.add(other)
    for error in (HUNG, NotAskedError(Outcome.HYPERVISOR_FAILED, Reason.HYPERVISOR_TIMED_OUT)):
        libvirt.no_sizes = error
        sizes = {domain.server_id: domain.disks[0].size for domain in made.look_at_all().domains}
        assert sizes == {one: disk.capacity, two: None}
    libvirt.no_sizes = None
    disk.capacity = 128 * MIB
    assert {d.disks[0].size for d in made.look_at_all().domains} == {128 * MIB, other.capacity}


def test_libvirt_away_is_not_ready_with_the_reason_and_goes_on_by_itself() -> None:
    """The full inventory comes once it is back."""
    libvirt = Libvirt(FakeHypervisor())
    libvirt.away = 3
    made, told, touched, health = keeper(libvirt)
    stop, reasons = threading.Event(), []
    original = health.bad

    def bad(name: str, reason: str, *, unanswered: bool = False) -> None:
        reasons.append((name, reason))
        original(name, reason, unanswered=unanswered)

    health.bad = bad  # type: ignore[method-assign]
    made._tell = lambda inventory: (told.append(inventory), stop.set(), touched.close())  # type: ignore[assignment]
    made.run(stop)
    assert len(reasons) == 3
    assert "no socket" in reasons[0][1]
    assert told[0].full
    assert health.checks()[HEALTH].ok


def test_an_event_has_its_domain_looked_at() -> None:
    """And only that one."""
    hypervisor = FakeHypervisor()
    server_id = hypervisor.add(FakeDisk())
    hypervisor.add(FakeDisk())
    libvirt = Libvirt(hypervisor)
    made, told, touched, _ = keeper(libvirt)
    stop = threading.Event()

    def tell(inventory: Inventory) -> None:
        told.append(inventory)
        if inventory.full:
            libvirt.connection.events[0](libvirt.connection, named(server_id), 0, 0, None)
        else:
            stop.set()
            touched.close()

    made._tell = tell
    made.run(stop)
    assert [d.server_id for d in told[1].domains] == [server_id]


def test_a_guest_that_comes_back_does_not_wait_for_the_look_at_a_large_host() -> None:
    """It is looked at next, and told before those that wait since the agent's start."""
    hypervisor = FakeHypervisor()
    servers = sorted(hypervisor.add(FakeDisk()) for _ in range(5))
    made, _, touched, _ = keeper(Libvirt(hypervisor))
    wanted: list[tuple[str, bool]] = []

    def want(server_id: str, _disks: object, came_back: bool) -> None:
        wanted.append((server_id, came_back))
        if server_id == servers[0]:
            touched.add({servers[-1]})

    made._want_told = want
    assert {d.server_id for d in made.look_at_all().domains} == set(servers)
    assert wanted[:2] == [(servers[0], False), (servers[-1], True)]
    assert len(wanted) == len(servers)


def test_a_lost_connection_means_looking_at_everything_anew() -> None:
    """Events of the time between are lost with it."""
    libvirt = Libvirt(FakeHypervisor())
    made, told, touched, _ = keeper(libvirt)
    stop = threading.Event()
    touched.take = lambda seconds: set()  # type: ignore[method-assign]

    def tell(inventory: Inventory) -> None:
        told.append(inventory)
        if len(told) == 1:
            libvirt.connection = FakeConnection(libvirt.hypervisor)
        else:
            stop.set()

    made._tell = tell
    made.run(stop)
    assert [inventory.full for inventory in told] == [True, True]
    assert libvirt.connection.events
