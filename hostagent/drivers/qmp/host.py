# SPDX-License-Identifier: Apache-2.0
"""The QEMUs of this host: which sockets there are, whose guests answer there, and their events."""

import glob
import logging
import os
import select
import stat
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, Final

from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from bridge.runtime.health import LIMIT, Health, moving
from hostagent.drivers.base import GuestArrival, GuestEvents, GuestList, failed
from hostagent.drivers.qmp.disks import device_name
from hostagent.drivers.qmp.errors import unreached
from hostagent.drivers.qmp.monitor import Monitor, name_id
from hostagent.drivers.qmp.settings import QmpSettings
from hostagent.drivers.qmp.wire import QmpDeadline, WireError, WireForeignError, WireRefusedError
from hostagent.errors import StepFailedError

LOG = logging.getLogger(__name__)

HEALTH: Final = "hostagent.qmp_sockets"
_SOCKETS_MAX: Final = 4096
_AT_ONCE: Final = 8  # sockets that are connected to at once
_EVENTS_EVERY: Final = 0.5  # seconds until a connection that was made meanwhile is read as well
_NAMED: Final = 3  # sockets in the check's reason
_BACK: Final = frozenset({"RESUME", "WAKEUP"})
"""Events after which a guest may have memory of before its disks grew: it was received, restored or reverted."""
_Key = tuple[str, int]


class QmpSockets:
    """The monitors of this host, by path and inode of their sockets; for several threads."""

    def __init__(self, settings: QmpSettings, health: Health) -> None:
        self._settings = settings
        self._health = health
        self._lock = threading.Lock()
        self._monitors: dict[_Key, Monitor] = {}
        self._events: GuestEvents | None = None
        health.expect(HEALTH)

    def watch(self, events: GuestEvents) -> None:
        """Hand all events to this receiver from now on."""
        self._events = events

    def guests(self) -> GuestList:
        """Return the guests of all sockets. Raises StepFailedError where there is no place for sockets at all.

        A socket that is silent may be a guest's: the list is complete only where its file's name says whose.
        """
        self._check_directories()
        monitors = self._connect_all()
        silent = [m for m in monitors if not m.connected and not isinstance(m.trouble, _NO_GUESTS)]
        named = {m: m.server_id or name_id(m.path) for m in silent}
        found = {m.server_id for m in monitors if m.connected}
        return GuestList(
            server_ids=frozenset(server_id for server_id in {*found, *named.values()} if server_id is not None),
            complete=None not in named.values(),
        )

    @contextmanager
    def held(self, server_id: str) -> Iterator[tuple[Monitor, QmpDeadline] | None]:
        """Hold the monitor of a guest for one call; None where no socket is the guest's. Raises StepFailedError."""
        deadline = QmpDeadline(self._settings.limit)
        monitor = self._find(server_id)
        if monitor is None:
            yield None
            return
        try:
            with monitor.used(deadline):
                yield (monitor, deadline) if monitor.server_id == server_id else None
        except WireError as ex:
            raise unreached(ex, monitor.path) from ex

    def keep_connected(self, stop: threading.Event) -> None:
        """Connect to sockets as they come, and say what is wrong with them; the body of a supervised thread."""
        before: set[str] = set()
        while not stop.is_set():
            monitors = self._connect_all()
            now = {m.server_id for m in monitors if m.connected and m.server_id is not None}
            self._changed(now ^ before)
            before = now
            self._health.ok(HEALTH, _words(monitors), good_for=LIMIT + self._settings.scan_interval)
            stop.wait(self._settings.scan_interval)

    def read_events(self, stop: threading.Event) -> None:
        """Read events of all guests as they come; the body of a supervised thread."""
        while not stop.is_set():
            by_descriptor = {m.fileno(): m for m in self._known() if m.fileno() >= 0}
            poll = select.poll()
            for descriptor in by_descriptor:
                poll.register(descriptor, select.POLLIN)
            if not by_descriptor:
                stop.wait(_EVENTS_EVERY)
                continue
            ready = poll.poll(_EVENTS_EVERY * 1000)
            for descriptor, _what in ready:
                by_descriptor[descriptor].read_events()
            if ready:
                stop.wait(0.01)  # a call that is under way reads the events of its guest itself

    def close(self) -> None:
        """Drop the connections to all guests."""
        for monitor in self._known():
            monitor.close()

    def _find(self, server_id: str) -> Monitor | None:
        """Return the guest's monitor, also one that does not answer now. Raises StepFailedError for several."""
        if (found := self._of(server_id, self._known())) is not None and found.connected:
            return found
        return self._of(server_id, self._connect_all())

    @staticmethod
    def _of(server_id: str, monitors: Collection[Monitor]) -> Monitor | None:
        """Return the monitor of a guest: a connected one, else a silent one that was its or bears its name."""
        here = [m for m in monitors if m.connected and m.server_id == server_id]
        if len(here) > 1:
            paths = ", ".join(sorted(m.path for m in here))
            raise failed(Reason.HYPERVISOR_RAISED, f"several QEMU processes have the UUID of this guest: {paths}")
        if here:
            return here[0]
        silent = [m for m in monitors if not m.connected and not isinstance(m.trouble, _NO_GUESTS)]
        return next((m for m in silent if (m.server_id or name_id(m.path)) == server_id), None)

    def _connect_all(self) -> Sequence[Monitor]:
        """Return all monitors, after a try to connect to each that has no connection."""
        monitors = self._scan()
        due = [monitor for monitor in monitors if monitor.is_due]
        if len(due) == 1:
            self._try(due[0])
        elif due:
            with ThreadPoolExecutor(min(_AT_ONCE, len(due)), thread_name_prefix="qmp-connect") as pool:
                for _ in pool.map(self._try, due):
                    moving()
        return monitors

    def _try(self, monitor: Monitor) -> None:
        with suppress(WireError, StepFailedError), monitor.used(QmpDeadline(self._settings.limit)):
            pass

    def _scan(self) -> Sequence[Monitor]:
        """Look for sockets that came or went. A guest whose socket's name is gone stays while it is connected."""
        there = dict(islice(self._sockets(), _SOCKETS_MAX))
        with self._lock:
            for key in self._monitors.keys() - there.keys():
                if not self._monitors[key].connected:
                    del self._monitors[key]
            for key in there.keys() - self._monitors.keys():
                self._monitors[key] = Monitor(key[0], on_event=self._on_event, on_lost=self._on_lost)
            return tuple(self._monitors.values())

    def _sockets(self) -> Iterator[tuple[_Key, None]]:
        for pattern in self._settings.sockets:
            for path in glob.iglob(pattern):  # noqa: PTH207 - the pattern is a whole path
                with suppress(OSError):
                    status = os.stat(path)  # noqa: PTH116 - one call for kind and inode
                    if stat.S_ISSOCK(status.st_mode):
                        yield (path, status.st_ino), None

    def _check_directories(self) -> None:
        """Raise StepFailedError where no pattern has its directory: a guest could not be told from none."""
        places = [Path(pattern).parent for pattern in self._settings.sockets]
        if not any(is_there(str(place)) for place in places):
            raise failed(Reason.HYPERVISOR_DOWN, f"no such directory: {', '.join(map(str, places))}")

    def _known(self) -> Sequence[Monitor]:
        with self._lock:
            return tuple(self._monitors.values())

    def _on_event(self, monitor: Monitor, name: str, data: Mapping[str, Any]) -> None:
        server_id, events = monitor.server_id, self._events
        if server_id is None or events is None:
            return
        LOG.debug("guest %s: %s", server_id, name)
        if name == "DEVICE_DELETED":
            path = data.get("device") or data.get("path")
            if isinstance(path, str):
                events.disk_removed(server_id, device_name(path))
        elif name == "RESET":
            events.arrived(server_id, GuestArrival.STARTED)
        elif name in _BACK:
            events.arrived(server_id, GuestArrival.CAME_BACK)
        events.changed(server_id)

    def _on_lost(self, monitor: Monitor) -> None:
        """Note that events of a guest were lost: what it was told counts no more."""
        if monitor.server_id is not None and self._events is not None:
            self._events.arrived(monitor.server_id, GuestArrival.CAME_BACK)
            self._events.changed(monitor.server_id)

    def _changed(self, server_ids: Collection[str]) -> None:
        if self._events is not None:
            for server_id in server_ids:
                self._events.changed(server_id)


_NO_GUESTS: Final = (WireRefusedError, WireForeignError)
"""Troubles of a socket behind which there is no guest: no process listens, or another program does."""


def is_there(pattern: str) -> bool:
    """Return whether anything matches a pattern of a whole path."""
    return next(glob.iglob(pattern), None) is not None  # noqa: PTH207 - the pattern is a whole path


def _words(monitors: Collection[Monitor]) -> str:
    """Return the sockets without a guest; they do not make the check fail."""
    odd = sorted(f"{m.path}: {m.trouble}" for m in monitors if not m.connected and m.trouble is not None)
    if not odd:
        return "ok"
    more = f" and {len(odd) - _NAMED} more" if len(odd) > _NAMED else ""
    return f"ok, but for {'; '.join(odd[:_NAMED])}{more}"


def absent() -> StepFailedError:
    """Return the error of a guest that is not here."""
    return StepFailedError(Outcome.NOT_HERE, Reason.DOMAIN_ABSENT)
