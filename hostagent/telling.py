# SPDX-License-Identifier: Apache-2.0
"""The thread that notifies guests of their disks' sizes. A guest that hangs delays it by one call limit."""

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from bridge.core.inventory import GuestState
from bridge.core.outcome import Told
from hostagent.domain import Disk, Domain, SourceKind
from hostagent.drivers.base import Hypervisor
from hostagent.errors import StepFailedError
from hostagent.knowledge import ToldDisks
from hostagent.ports import DeviceGuard, Images
from hostagent.resize import ToldNow, tell

LOG = logging.getLogger(__name__)

_FIRST_RETRY: Final = 0.2  # seconds; doubled at each try that failed
_LAST_RETRY: Final = 30.0
_OWNED: Final = 0.2  # seconds until a volume that a worker owns is tried again


class VolumeOwners(Protocol):
    """The ownership of volumes among the threads that may resize their disks."""

    def own(self, volume_id: str) -> bool:
        """Take a volume; False where another thread has it."""

    def done(self, volume_id: str) -> None:
        """Give a volume back to the other threads."""


@dataclass(slots=True)
class _GuestToTell:
    """One guest to be told. `disks`: those it may not know of. `at`: when, 0 for a guest that just came back."""

    disks: Sequence[Disk]
    at: float = 0.0
    tries: int = 0


class Teller:
    """One thread that tells guests; the body of a supervised thread.

    It has a session of its own, so that neither the inventory nor an order waits for it. A guest whose QEMU
    hangs costs one call limit and is tried again later.
    """

    def __init__(
        self,
        hypervisor: Hypervisor,
        told: ToldDisks,
        *,
        owners: VolumeOwners,
        images: Images | None,
        hidden: Callable[[Disk], int],
        on_told: Callable[[Collection[str]], None],
        guard: DeviceGuard | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_told`: is handed the servers that were told. `guard`: refuses a device that is another volume."""
        self._hypervisor = hypervisor
        self._told = told
        self._owners = owners
        self._images = images
        self._hidden = hidden
        self._on_told = on_told
        self._guard = guard
        self._clock = clock
        self._changed = threading.Condition()
        self._due: dict[str, _GuestToTell] = {}
        self._closed = False

    def want(self, server_id: str, disks: Sequence[Disk], came_back: bool = False) -> None:
        """Have a guest told of these disks; none: it needs no telling any more. Returns at once.

        `came_back`: something happened to the guest. It is told at once, before those that wait since the agent's
        start, and also where an earlier try has failed.
        """
        with self._changed:
            if not disks:
                self._due.pop(server_id, None)
                return
            due = self._due.get(server_id)
            if due is None or set(due.disks) != set(disks):
                due = self._due[server_id] = _GuestToTell(disks=tuple(disks), at=self._clock())
                self._changed.notify_all()
            if came_back and due.at > 0:
                due.at = 0.0
                self._changed.notify_all()

    def close(self) -> None:
        """Wake the thread that waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def run(self, stop: threading.Event) -> None:
        """Notify guests until stopped."""
        while not stop.is_set():
            server_id = self._next()
            if server_id is not None:
                self.tell_one(server_id)

    def tell_one(self, server_id: str) -> None:
        """Notify one guest that is due, or schedule another attempt."""
        with self._changed:
            due = self._due.get(server_id)
        if due is None:
            return
        owned = [disk for disk in due.disks if disk.volume_id is not None and self._owners.own(disk.volume_id)]
        told: set[str] = set()
        try:
            told = self._tell(server_id, owned)
        except Exception:
            LOG.exception("server %s: the guest cannot be notified of its disks' sizes", server_id)
        finally:
            for disk in owned:
                self._owners.done(disk.volume_id or "")
        left = [disk for disk in due.disks if disk.target not in told]
        with self._changed:
            if self._due.get(server_id) is due:
                self._put_off(server_id, due, left, waits_for_owner=len(owned) < len(due.disks))
        if told:
            self._on_told({server_id})

    def _put_off(self, server_id: str, due: _GuestToTell, left: Sequence[Disk], *, waits_for_owner: bool) -> None:
        if not left:
            del self._due[server_id]
            return
        due.disks, due.tries = left, due.tries + (not waits_for_owner)
        pause = _OWNED if waits_for_owner else min(_LAST_RETRY, _FIRST_RETRY * 2 ** min(due.tries - 1, 10))
        due.at = self._clock() + pause

    def _next(self) -> str | None:
        """Wait for a guest that is due now; None when woken for something else."""
        with self._changed:
            if self._closed:
                return None
            if not self._due:
                self._changed.wait(1.0)
                return None
            server_id, due = min(self._due.items(), key=lambda item: item[1].at)
            left = due.at - self._clock()
            if left > 0:
                self._changed.wait(min(left, 1.0))
                return None
            return server_id

    def _tell(self, server_id: str, disks: Sequence[Disk]) -> set[str]:
        """Tell of disks; return the targets that were told. An image is read from its storage, each by itself."""
        disks = [disk for disk in disks if self._is_its_volume(server_id, disk)]
        local = [disk for disk in disks if disk.kind is not SourceKind.NETWORK]
        groups = [local] if local else []
        groups += [[disk] for disk in disks if disk.kind is SourceKind.NETWORK]
        told: set[str] = set()
        for group in groups:
            try:
                told |= self._tell_group(server_id, group)
            except StepFailedError as ex:
                LOG.debug("server %s: the guest cannot be notified of its disks' sizes now: %s", server_id, ex)
                for disk in group if len(group) > 1 else ():
                    with suppress(StepFailedError):
                        told |= self._tell_group(server_id, [disk])
        return told

    def _is_its_volume(self, server_id: str, disk: Disk) -> bool:
        """Return whether the device still is the volume, because QEMU uses all of a device at any resize."""
        if self._guard is None:
            return True
        try:
            self._guard.check(Domain(server_id=server_id, state=GuestState.ACTIVE, disks=()), disk)
        except StepFailedError as ex:
            LOG.warning("server %s disk %s: the guest is not notified of its size: %s", server_id, disk.target, ex)
            return False
        return True

    def _tell_group(self, server_id: str, disks: Sequence[Disk]) -> set[str]:
        result = tell(self._hypervisor, server_id, disks, image_size=self._image_size(disks[0]))
        self._note(server_id, disks, result)
        return set(result.capacities)

    def _note(self, server_id: str, disks: Sequence[Disk], result: ToldNow) -> None:
        for disk in disks:
            capacity = result.capacities.get(disk.target)
            if capacity is not None and disk.volume_id is not None:
                self._told.note(server_id, result.run, disk.volume_id, capacity, Told.YES)
                LOG.debug("server %s disk %s: the guest was notified of %d bytes", server_id, disk.target, capacity)

    def _image_size(self, disk: Disk) -> Callable[[], int] | None:
        """Return a reader of an image's size, without the header that its guest does not see."""
        if disk.kind is not SourceKind.NETWORK or self._images is None:
            return None
        read, header = self._images.reader(disk), self._hidden(disk)
        return lambda: read() - header
