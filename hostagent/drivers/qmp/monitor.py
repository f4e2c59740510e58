# SPDX-License-Identifier: Apache-2.0
"""The monitor of one guest's QEMU: one connection, one call at a time, its events handed on as they come.

QEMU answers one client at a time on a socket, so all threads of the agent share the connection of a guest. A call
that is abandoned drops the connection. QEMU handles the commands of all its monitors one after another, in their
order. So a late resize ends before a call of the next connection is answered, and cannot overtake it.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bridge.core.extend import is_uuid
from bridge.core.reasons import Reason
from hostagent.drivers.base import failed
from hostagent.drivers.qmp.errors import QmpError
from hostagent.drivers.qmp.wire import (
    JsonLines,
    QmpDeadline,
    WireError,
    WireForeignError,
    WireRefusedError,
    WireSilentError,
    json_object,
)
from hostagent.errors import NotAskedError

LOG = logging.getLogger(__name__)

_LINE_MAX: Final = 16 << 20  # bytes; a guest with a thousand disks answers query-block with 4 MiB
_GREETING_MAX: Final = 1 << 16
_TEXT_MAX: Final = 200
_NO_UUID: Final = "00000000-0000-0000-0000-000000000000"
_PAUSE: Final = (2.0, 60.0)  # seconds until a socket that did not answer is asked again: at first, and at most
_STARTED_AT: Final = 19  # field of /proc/PID/stat after the name: starttime

OnEvent = Callable[["Monitor", str, Mapping[str, Any]], None]


class Monitor:
    """A QMP socket. `server_id`: the guest that answered there last; `run`: the run of its QEMU."""

    def __init__(self, path: str, *, on_event: OnEvent, on_lost: Callable[["Monitor"], None]) -> None:
        self.path = path
        self.server_id: str | None = None
        self.run: str | None = None
        self.trouble: WireError | None = None
        self._on_event = on_event
        self._on_lost = on_lost
        self._lock = threading.Lock()
        self._wire: JsonLines | None = None
        self._identified = False
        self._number = 0
        self._failures = 0
        self._ask_at = 0.0

    @property
    def connected(self) -> bool:
        """Return whether there is a connection, and the guest at its other end is known."""
        return self._identified

    @property
    def is_due(self) -> bool:
        """Return whether the socket is to be asked, or is just being asked by another thread: `used` waits."""
        return not self._identified and time.monotonic() >= self._ask_at

    def fileno(self) -> int:
        """Return the descriptor of the connection; -1 without one."""
        wire = self._wire
        return wire.fileno() if wire is not None else -1

    @contextmanager
    def used(self, deadline: QmpDeadline) -> Iterator[None]:
        """Hold the monitor for several calls, connected. Raises WireError, and NotAskedError soon after one."""
        if not self._lock.acquire(timeout=deadline.left()):
            raise WireSilentError("an earlier call for this guest has not returned yet")
        try:
            if self._wire is None:
                self._connect(deadline)
            yield
        except WireError as ex:
            self._drop(ex)
            raise
        finally:
            self._lock.release()

    def execute(self, deadline: QmpDeadline, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """Return the answer to one command; within `used`. Raises WireError and QmpError."""
        wire = self._wire
        if wire is None:
            raise WireError("the connection was lost")
        self._number += 1
        message: dict[str, Any] = {"execute": command, "id": self._number}
        if arguments:
            message["arguments"] = arguments
        wire.send(message, deadline)
        while True:
            answer = wire.message(deadline)
            if self._is_event(answer) or answer.get("id") != self._number:
                continue
            if "return" in answer:
                return answer["return"]
            error = answer.get("error")
            raise QmpError(
                command, str(error.get("desc", ""))[:200] if isinstance(error, dict) else "no error text"
            )

    def read_events(self) -> None:
        """Take the events that are at hand, unless a call reads them just now."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            while self._wire is not None and (line := self._wire.line_at_hand()) is not None:
                self._is_event(json_object(line))
        except WireError as ex:
            self._drop(ex)
        finally:
            self._lock.release()

    def close(self) -> None:
        """Drop the connection, if there is one."""
        self._identified = False
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    def _connect(self, deadline: QmpDeadline) -> None:
        if time.monotonic() < self._ask_at:
            raise self._not_asked()
        wire = JsonLines(self.path, deadline, line_max=_LINE_MAX)
        self._wire = wire
        if "QMP" not in json_object(_greeting(wire, deadline)):
            raise WireForeignError("the other side does not speak QMP")
        self.execute(deadline, "qmp_capabilities")
        server_id = _guest_id(self.execute(deadline, "query-uuid"), self.path)
        if server_id is None:
            raise WireForeignError(
                "QEMU runs without -uuid and the name of the socket is not a UUID, so its guest is unknown"
            )
        self.run, before, self.server_id = _run_of(wire.peer_pid()), self.server_id, server_id
        self.trouble, self._failures, self._ask_at = None, 0, 0.0
        self._identified = True
        if before != server_id:
            LOG.info("%s: guest %s", self.path, server_id)

    def _drop(self, error: WireError) -> None:
        was_there = self._failures == 0 and self._wire is not None
        self.close()
        self.trouble = error
        self._failures += 1
        pause = 0.0 if was_there and not isinstance(error, WireSilentError) else _PAUSE[0]
        if pause and not isinstance(error, WireRefusedError):
            pause = min(_PAUSE[1], pause * 2 ** min(self._failures - 1, 10))
        self._ask_at = time.monotonic() + pause
        LOG.log(logging.WARNING if was_there else logging.DEBUG, "%s: %s", self.path, error)
        self._on_lost(self)

    def _not_asked(self) -> NotAskedError:
        error = failed(
            Reason.HYPERVISOR_TIMED_OUT, f"{self.path} does not answer and is tried again soon: {self.trouble}"
        )
        return NotAskedError(error.outcome, error.reason, error.detail)

    def _is_event(self, message: Mapping[str, Any]) -> bool:
        """Hand an event on; return whether the message is one."""
        name = message.get("event")
        if not isinstance(name, str):
            return False
        data = message.get("data")
        if self._identified:
            self._on_event(self, name, data if isinstance(data, dict) else {})
        return True


def _greeting(wire: JsonLines, deadline: QmpDeadline) -> bytes:
    line = wire.line(deadline)
    if len(line) > _GREETING_MAX:
        raise WireForeignError("the other side does not speak QMP")
    return line


def _guest_id(answer: Any, path: str) -> str | None:
    """Return QEMU's -uuid, else the file's name where that is one. Pure."""
    told = answer.get("UUID") if isinstance(answer, dict) else None
    if isinstance(told, str) and is_uuid(told.lower()) and told != _NO_UUID:
        return told.lower()
    return name_id(path)


def name_id(path: str) -> str | None:
    """Return the guest's id by the name of its socket, None where it is not a UUID. Pure."""
    stem = Path(path).stem.lower()
    return stem if is_uuid(stem) else None


def _run_of(pid: int) -> str:
    """Name the run of the QEMU that listens: its pid and start. Where that is not known, this connection alone.

    A socket can be handed to QEMU by another process, which then says nothing of QEMU.
    """
    try:
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition(" (")[2].rpartition(") ")
        if pid and name.startswith("qemu"):
            return f"{pid}.{rest.split()[_STARTED_AT]}"
    except (OSError, IndexError, ValueError):
        pass
    return f"connection-{time.monotonic_ns()}"
