# SPDX-License-Identifier: Apache-2.0
"""The host's inventory: its domains, their volumes, the size of each, and whether its guest knows it.

In full at the start, after every reconnect and every `inventory_interval`; in between what events name.
An extend by another program (nova-compute) raises no event; the next full inventory shows it.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Protocol

from bridge.core.extend import Bytes
from bridge.core.inventory import DiskSeen, DomainSeen, GuestState, Inventory
from bridge.core.outcome import Told
from bridge.core.reasons import Reason
from bridge.runtime.health import LIMIT, Health, moving
from bridge.runtime.retry import Backoff
from hostagent.domain import Disk, Domain
from hostagent.drivers.base import GuestArrival, HostView, Watch
from hostagent.errors import NotAskedError, StepFailedError
from hostagent.knowledge import ToldDisks
from hostagent.ports import HeaderOf

LOG = logging.getLogger(__name__)

_GATHER: Final = 0.2  # seconds: a start raises several events, and a host's start raises many
_UNEVEN: Final = (0.9, 1.1)  # of the interval: a fleet started in one moment does not go on telling in one
_LOOK_ALIVE: Final = 5.0  # seconds between looks whether the connection still stands


class DeviceWatch(Protocol):
    """The memory of which device each volume is, as the inventory feeds it."""

    def observe(self, domain: Domain, detached: Collection[str] = ()) -> object:
        """Take note of a guest's disks and of the devices that left it."""

    def observe_host(self, server_ids: frozenset[str]) -> None:
        """Take note of the guests of this host."""

    def write_observed(self) -> None:
        """Keep what was observed across a restart."""


class Touched:
    """Servers that need another look. For several threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._servers: set[str] = set()
        self._removed: dict[str, set[str]] = {}
        self._closed = False

    def add(self, server_ids: Collection[str]) -> None:
        """Add servers that need another look."""
        with self._changed:
            self._servers.update(server_ids)
            self._changed.notify_all()

    def removed(self, server_id: str, alias: str) -> None:
        """Note that a device left a guest, by the hypervisor's name of it."""
        with self._changed:
            self._removed.setdefault(server_id, set()).add(alias)
        self.add({server_id})

    def take_removed(self, server_id: str) -> set[str]:
        """Return the devices that left a guest since the last look at it."""
        with self._changed:
            return self._removed.pop(server_id, set())

    def take(self, seconds: float) -> set[str]:
        """Return the servers added since; wait up to `seconds` for the first."""
        with self._changed:
            self._changed.wait_for(lambda: self._servers or self._closed, max(0.0, seconds))
            taken, self._servers = self._servers, set()
            return taken

    def close(self) -> None:
        """Wake the waiting thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


WantTold = Callable[[str, Sequence[Disk], bool], None]
"""Has a guest told of these disks; before all others where an event says that something happened to it."""


class InventoryKeeper:
    """The thread that keeps the inventory; the body of a supervised thread."""

    def __init__(
        self,
        hypervisor: HostView,
        *,
        tell: Callable[[Inventory], None],
        touched: Touched,
        volume_types: Mapping[str, str],
        hidden: HeaderOf = lambda _disk: 0,
        devices: DeviceWatch | None = None,
        told: ToldDisks | None = None,
        want_told: WantTold = lambda _server_id, _disks, _came_back: None,
        interval: float,
        health: Health,
        check: str = "hostagent.hypervisor",
        good_for: float = LIMIT,
        backoff: Backoff | None = None,
    ) -> None:
        self._hypervisor = hypervisor
        self._check = check
        self._good_for = good_for
        self._read = False  # all guests were read over this connection
        self._tell = tell
        self._touched = touched
        self._capabilities = tuple(name for name, why_not in volume_types.items() if not why_not)
        self._unsupported = {name: why_not for name, why_not in volume_types.items() if why_not}
        self._hidden = hidden
        self._devices = devices
        self._told = told or ToldDisks(watches=True)
        self._want_told = want_told
        self._interval = interval
        self._health = health
        self._backoff = backoff or Backoff(first=0.5, cap=10, floor=0.2)
        self._watching: Watch | None = None
        self._known: dict[str, DomainSeen] = {}
        self._odd: dict[str, str] = {}  # guests that cannot be read, and why
        self._missed = False  # a guest is here and could not be listed
        health.expect(check)

    def run(self, stop: threading.Event) -> None:
        """Keep the inventory until stopped; wait for a hypervisor that cannot be reached."""
        failures = 0
        while not stop.is_set():
            try:
                self._watch(stop)
            except StepFailedError as ex:
                failures += 1
                self._read = False
                self._health.bad(self._check, f"{ex.reason.text}: {ex.detail}")
                stop.wait(self._backoff.delay(failures))
            else:
                failures = 0

    def look_at_all(self) -> Inventory:
        """Read every domain. Raises StepFailedError where the hypervisor cannot be reached."""
        listed = self._hypervisor.guests()
        here = listed.server_ids
        for server_id in (self._known.keys() - here) if listed.complete else ():
            del self._known[server_id]
        if listed.complete:
            if self._devices is not None:
                self._devices.observe_host(here)
            self._told.keep(here)
        self._odd.clear()
        self._missed = not listed.complete
        seen: dict[str, DomainSeen | None] = {}
        try:
            for server_id in sorted(here):
                # A guest that comes back does not wait for the rest of a large host.
                for changed in self._touched.take(0):
                    seen[changed] = self._look(changed, came_back=True)
                if server_id not in seen:
                    seen[server_id] = self._look(server_id)
                    self._renew()
        finally:  # also of a look that ends early, because the hypervisor went away
            self._write_devices()
        return Inventory(
            full=not self._missed,  # a list with gaps must not say that guests left this host
            domains=tuple(domain for domain in seen.values() if domain is not None),
            capabilities=self._capabilities,
            unsupported=self._unsupported,
        )

    def look_at(self, server_ids: Collection[str]) -> Inventory:
        """Look at the named domains; say which of them are gone."""
        seen = {server_id: self._look(server_id, came_back=True) for server_id in sorted(server_ids)}
        self._write_devices()
        return Inventory(
            full=False,
            domains=tuple(domain for domain in seen.values() if domain is not None),
            gone=tuple(server_id for server_id, domain in seen.items() if domain is None),
        )

    def _write_devices(self) -> None:
        if self._devices is not None:
            self._devices.write_observed()

    def _renew(self) -> None:
        """Repeat the good word about the hypervisor, which has just answered, until the next look at all guests."""
        if self._read:
            self._health.ok(self._check, self._words(), good_for=self._good_for)

    def _words(self) -> str:
        """Name the guests that cannot be read: they do not make the rest of the host unready."""
        if not self._odd:
            return "ok"
        server_id, why = next(iter(self._odd.items()))
        more = f" and {len(self._odd) - 1} more" if len(self._odd) > 1 else ""
        return f"ok, but for server {server_id}{more}, which cannot be read: {why}"

    def _watch(self, stop: threading.Event) -> None:
        """Keep the inventory from the beginning of one connection to its end."""
        watch = self._hypervisor.watch(self)
        if watch is not self._watching:
            self._watching = watch
            self._told.forget_all()  # what happened before this watch, no event has said
        full_at = 0.0
        while not stop.is_set():
            if time.monotonic() >= full_at:
                self._touched.take(0)
                self._tell(self.look_at_all())
                self._read = True
                self._renew()
                full_at = time.monotonic() + self._interval * random.uniform(*_UNEVEN)  # noqa: S311 - no secret
            if self._touched_soon(stop, min(_LOOK_ALIVE, full_at - time.monotonic())):
                self._tell(self.look_at(self._touched.take(0)))
            elif not watch.stands():
                LOG.info("events of the hypervisor may have been lost; all guests are read again")
                return
            self._renew()

    def _touched_soon(self, stop: threading.Event, seconds: float) -> bool:
        """Return whether a server was touched within the time; give its neighbours a moment to arrive, too."""
        touched = self._touched.take(seconds)
        if not touched or stop.is_set():
            return False
        stop.wait(_GATHER)
        self._touched.add(touched)
        return True

    def changed(self, server_id: str) -> None:
        """Request another look at a guest; called in a thread of the driver."""
        self._touched.add({server_id})

    def disk_removed(self, server_id: str, alias: str) -> None:
        """Note in a thread of the driver that a disk left: it may be back before the next look."""
        self._touched.removed(server_id, alias)

    def arrived(self, server_id: str, how: GuestArrival) -> None:
        """Note the cause of a guest's arrival or return; called in a thread of the driver."""
        self._told.arrived(server_id, how)

    def _look(self, server_id: str, *, came_back: bool = False) -> DomainSeen | None:
        moving()
        try:
            domain = self._hypervisor.domain(server_id)
        except StepFailedError as ex:
            if ex.reason is Reason.HYPERVISOR_DOWN:
                raise
            return self._unreadable(server_id, ex)
        if domain is None:
            self._known.pop(server_id, None)
            self._want_told(server_id, (), False)
            return None
        if self._devices is not None:
            self._devices.observe(domain, self._touched.take_removed(server_id))
        self._known[server_id] = seen = self._seen(domain, came_back=came_back)
        return seen

    def _unreadable(self, server_id: str, ex: StepFailedError) -> DomainSeen | None:
        """Return a guest that cannot be read as it was; one that never could, with its state and without disks."""
        self._odd[server_id] = ex.detail or ex.reason.text
        LOG.log(
            logging.DEBUG if isinstance(ex, NotAskedError) else logging.WARNING,
            "server %s cannot be read, so its last known state is reported: %s", server_id, ex,
        )  # fmt: skip
        if server_id in self._known:
            return self._known[server_id]
        try:
            state = self._hypervisor.state(server_id)
        except StepFailedError as still:
            if still.reason is Reason.HYPERVISOR_DOWN:
                raise
            self._missed = True
            return None
        return DomainSeen(server_id=server_id, state=state, disks=()) if state is not None else None

    def _seen(self, domain: Domain, *, came_back: bool) -> DomainSeen:
        known = self._known.get(domain.server_id)
        before = {disk.volume_id: disk.size for disk in known.disks} if known is not None else {}
        disks = {disk.volume_id: disk for disk in domain.disks if disk.volume_id is not None}
        capacities = {volume_id: self._capacity(domain, disk) for volume_id, disk in disks.items()}
        told = self._told.judge(domain, capacities)
        active = domain.state is GuestState.ACTIVE
        self._want_told(
            domain.server_id,
            [disks[volume_id] for volume_id, knows in told.items() if active and knows is Told.NO],
            came_back,
        )
        return DomainSeen(
            server_id=domain.server_id,
            state=domain.state,
            saved=domain.saved,
            disks=tuple(
                DiskSeen(
                    volume_id=volume_id,
                    size=self._size(domain, disk, capacities[volume_id], before.get(volume_id)),
                    told=told[volume_id],
                )
                for volume_id, disk in disks.items()
            ),
        )

    def _capacity(self, domain: Domain, disk: Disk) -> int | None:
        """Return what QEMU shows the guest; None where the guest sees nothing now, or QEMU does not answer."""
        if domain.state is not GuestState.ACTIVE:
            return None
        moving()
        try:
            return self._hypervisor.capacity(domain.server_id, disk.target).capacity
        except NotAskedError:
            return None
        except StepFailedError as ex:
            LOG.warning("server %s disk %s: its size cannot be read: %s", domain.server_id, disk.target, ex)
            return None

    def _size(self, domain: Domain, disk: Disk, capacity: int | None, was: Bytes | None) -> Bytes | None:
        """Return what the guest sees, and what of the volume it is not shown: comparable with the volume's size.

        None where the guest sees nothing now. If QEMU or the header cannot be read, it is the last known size. A
        disk only grows, so at worst the guest counts as behind.
        """
        if domain.state is not GuestState.ACTIVE:
            return None
        if capacity is None:
            return was
        try:
            return Bytes(capacity + self._hidden(disk))
        except NotAskedError:
            return was
        except StepFailedError as ex:
            LOG.warning("server %s disk %s: its header cannot be read: %s", domain.server_id, disk.target, ex)
            return was
