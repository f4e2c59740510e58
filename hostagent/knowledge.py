# SPDX-License-Identifier: Apache-2.0
"""Memory of what each guest knows of its disks' sizes, by run of its QEMU. No effects.

The virtual hardware can have a size that its guest does not know, if the guest was restored, migrated or reverted
while its volume grew. The guest's driver reads the size only after an interrupt. So each disk counts as not told
when a run of the guest is first seen, and again after each event that brings the guest back within that run.
"""

import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from bridge.core.inventory import GuestState
from bridge.core.outcome import Told
from hostagent.domain import Disk, Domain, SourceKind
from hostagent.drivers.base import GuestArrival


def needs_telling(disk: Disk) -> bool:
    """Return whether a guest that came back has to be told of this disk.

    Of a file it has not: nothing but QEMU makes a file larger while it is attached, and QEMU tells the guest then.
    """
    return disk.can_be_told and disk.kind is not SourceKind.FILE


@dataclass(slots=True)
class _Guest:
    """Memory of one run of a guest. `sizes`: capacity and knowledge by volume."""

    run: str | None
    started: bool = False
    complete: bool = False
    sizes: dict[str, tuple[int, Told | None]] = field(default_factory=dict)


class ToldDisks:
    """Knowledge of what each guest was told, by volume. For several threads.

    `watches`: the agent only looks. Then it tells no guest, and a disk it cannot judge is left open.
    """

    def __init__(self, *, watches: bool = False) -> None:
        self._watches = watches
        self._lock = threading.Lock()
        self._guests: dict[str, _Guest] = {}
        self._started: set[str] = set()

    def arrived(self, server_id: str, how: GuestArrival) -> None:
        """Note an event that makes the knowledge about a guest void."""
        with self._lock:
            if how is GuestArrival.STARTED:
                self._guests.pop(server_id, None)
                self._started.add(server_id)
                return
            self._started.discard(server_id)
            guest = self._guests.get(server_id)
            if guest is not None:
                guest.started = False
                guest.sizes = {v: (s, t) for v, (s, t) in guest.sizes.items() if t is Told.AT_RESTART}
                guest.complete = False

    def forget_all(self) -> None:
        """Note that events were lost: a run that ended meanwhile and a new one can have the same id.

        A disk that waits for its guest's restart goes on waiting: nothing says that the guest has restarted.
        """
        with self._lock:
            for guest in self._guests.values():
                guest.sizes = {v: (s, t) for v, (s, t) in guest.sizes.items() if t is Told.AT_RESTART}
                guest.complete = guest.started = False

    def keep(self, server_ids: Collection[str]) -> None:
        """Forget all other guests."""
        with self._lock:
            self._guests = {s: guest for s, guest in self._guests.items() if s in server_ids}
            self._started &= set(server_ids)

    def judge(self, domain: Domain, capacities: Mapping[str, int | None]) -> Mapping[str, Told | None]:
        """Return for each volume of a domain whether its guest knows the size; `capacities` as read now."""
        if domain.state is not GuestState.ACTIVE:
            reads_it_at_start = domain.state is GuestState.OFF and not domain.saved
            return dict.fromkeys(capacities, Told.YES if reads_it_at_start else None)
        with self._lock:
            guest = self._guest(domain.server_id, domain.run)
            guest.sizes = {v: known for v, known in guest.sizes.items() if v in capacities}  # others were detached
            judged = {
                disk.volume_id: self._judge(guest, disk, disk.volume_id, capacities[disk.volume_id])
                for disk in domain.disks
                if disk.volume_id is not None and disk.volume_id in capacities
            }
            guest.complete = True
            return judged

    def note(self, server_id: str, run: str | None, volume_id: str, capacity: int, told: Told) -> None:
        """Note that a guest was notified of a size, or cannot be before its restart."""
        with self._lock:
            self._guest(server_id, run).sizes[volume_id] = (capacity, told)

    def judge_disk(self, domain: Domain, disk: Disk, capacity: int) -> Told | None:
        """Return whether the guest of an active domain knows the size of one disk: `capacity`, as read now."""
        if disk.volume_id is None:
            return None
        with self._lock:
            return self._judge(self._guest(domain.server_id, domain.run), disk, disk.volume_id, capacity)

    def _guest(self, server_id: str, run: str | None) -> _Guest:
        guest = self._guests.get(server_id)
        if guest is None or guest.run != run:
            guest = self._guests[server_id] = _Guest(run=run, started=server_id in self._started)
            self._started.discard(server_id)
        return guest

    def _judge(self, guest: _Guest, disk: Disk, volume_id: str, capacity: int | None) -> Told | None:
        if capacity is None:
            return guest.sizes.get(volume_id, (0, None))[1]
        before = guest.sizes.get(volume_id)
        if before is not None and before[0] == capacity:
            return before[1]
        if before is None:
            told = self._first(guest, disk)
        elif disk.can_be_told:
            told = Told.YES if self._watches or not needs_telling(disk) else Told.NO
        else:
            told = Told.AT_RESTART
        guest.sizes[volume_id] = (capacity, told)
        return told

    def _first(self, guest: _Guest, disk: Disk) -> Told | None:
        """Return what the first look at a disk says. A disk that came later in a run was read when it came."""
        if guest.started or guest.complete:
            return Told.YES
        if not disk.can_be_told or self._watches:
            return None
        return Told.NO if needs_telling(disk) else Told.YES
