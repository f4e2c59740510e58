# SPDX-License-Identifier: Apache-2.0
"""A few os-brick processes, each used by one volume at a time; one that hangs is killed with its whole group."""

import itertools
import json
import logging
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Final

from bridge.core.encryption import Encryption
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.brick import lock
from hostagent.errors import StepFailedError
from hostagent.ports import Nudge
from hostagent.settings import BrickSettings

LOG = logging.getLogger(__name__)

CHILD: Final = (sys.executable, "-m", "hostagent.brick.child")
GROW_MAP: Final = "grow_map"
RESCAN: Final = "rescan"
READ_ANEW: Final = "read_anew"
_ANSWER_MAX: Final = 1 << 20
_LOOK_AT_LOCK: Final = 0.5  # seconds
_REAP: Final = 2.0  # seconds; a process in uninterruptible sleep cannot die before its device answers

_ERRORS: Final[Mapping[str, tuple[Outcome, Reason]]] = {
    "unsupported": (Outcome.UNSUPPORTED, Reason.NO_STRATEGY),
    "no_size": (Outcome.BRICK_FAILED, Reason.BRICK_NO_SIZE),
    "paths_down": (Outcome.PATHS_DOWN, Reason.BRICK_RAISED),
    "no_key": (Outcome.BRICK_FAILED, Reason.KEY_UNAVAILABLE),
    "wrong_key": (Outcome.BRICK_FAILED, Reason.KEY_WRONG),
}


class BrickPool:
    """Hands each call to a free process. For several threads.

    A process is started when it is needed, which takes half a second. It is ended when it had no call for `idle`
    seconds, because os-brick takes as much memory as the whole agent. As a part, the pool has a thread that ends
    idle processes.
    """

    def __init__(self, settings: BrickSettings, *, command: Sequence[str] = CHILD) -> None:
        self._settings = settings
        self._command = command
        self._free: queue.LifoQueue[_BrickChild | None] = queue.LifoQueue()
        self._lock = threading.Lock()
        self._all: set[_BrickChild] = set()
        self._closed = False
        self._ended = threading.Event()
        for _ in range(settings.processes):
            self._free.put(None)

    def extend(self, protocol: str, properties: Mapping[str, Any]) -> int:
        return int(self._call("extend", protocol, properties)["size"])

    def paths(self, protocol: str, properties: Mapping[str, Any]) -> list[str]:
        return [str(path) for path in self._call("paths", protocol, properties)["paths"]]

    def rescan(self, nudge: Nudge) -> None:
        self._call(RESCAN, "", asdict(nudge))

    def read_anew(self, nudge: Nudge) -> None:
        self._call(READ_ANEW, "", asdict(nudge))

    def grow_map(self, name: str, encryption: Encryption) -> None:
        """Grow the map. The process that had the key ends with the call, and its memory with it."""
        properties = {"device": f"/dev/mapper/{name}", "encryption": encryption.to_wire()}
        self._call(GROW_MAP, "", properties)

    def _call(self, what: str, protocol: str, properties: Mapping[str, Any]) -> Mapping[str, Any]:
        """Call a process. The wait for a process and the call each have the limit; os-brick's lock has another."""
        try:
            process = self._free.get(timeout=self._settings.limit)
        except queue.Empty as ex:
            raise StepFailedError(
                Outcome.BRICK_FAILED, Reason.BRICK_TIMED_OUT, "every os-brick process is busy"
            ) from ex
        try:
            if process is None:
                process = self._start()
            return process.call(
                {"what": what, "protocol": protocol, "properties": dict(properties)},
                locks=what in {RESCAN, READ_ANEW} or (what == "extend" and protocol in lock.PROTOCOLS),
            )
        finally:
            if process is not None and (what == GROW_MAP or not process.usable):
                self._retire(process)
                process = None
            if process is not None:
                process.used_at = time.monotonic()
            self._free.put(process)

    def pids(self) -> list[int]:
        """Return the pids of the processes that run now."""
        with self._lock:
            return [process.pid for process in self._all]

    def start(self) -> None:
        """Start the thread that ends idle processes."""
        threading.Thread(target=self._look_after, name="brick-idle", daemon=True).start()

    def stop(self) -> None:
        """Do nothing, because calls in progress may end by themselves."""

    def join(self, seconds: float) -> bool:
        """Kill all processes, and with them the calls in progress."""
        del seconds
        self.close()
        return True

    def close(self) -> None:
        """Kill all processes; calls in progress end as failed."""
        self._ended.set()
        with self._lock:
            self._closed = True
            processes = list(self._all)
        for process in processes:
            process.kill()
        while True:
            try:
                idle = self._free.get_nowait()
            except queue.Empty:
                return
            if idle is not None:
                self._retire(idle)

    def _look_after(self) -> None:
        while not self._ended.wait(self._settings.idle / 2):
            self.end_idle()

    def end_idle(self) -> None:
        """End the processes that had no call for `idle` seconds."""
        free: list[_BrickChild | None] = []
        with suppress(queue.Empty):
            while True:
                free.append(self._free.get_nowait())
        for process in reversed(free):
            if process is not None and time.monotonic() - process.used_at >= self._settings.idle:
                self._retire(process)
                process = None  # noqa: PLW2901 - its place is free for a new one
            self._free.put(process)

    def _retire(self, process: "_BrickChild") -> None:
        process.kill()
        process.release()
        with self._lock:
            self._all.discard(process)

    def _start(self) -> "_BrickChild":
        with self._lock:
            if self._closed:
                raise StepFailedError(Outcome.BRICK_FAILED, Reason.BRICK_DIED, "the agent is stopping")
            try:
                process = _BrickChild(self._command, self._settings)
            except OSError as ex:
                raise StepFailedError(
                    Outcome.BRICK_FAILED, Reason.BRICK_DIED, f"an os-brick process cannot be started: {ex.strerror}"
                ) from ex
            self._all.add(process)
            return process


class _BrickChild:
    """A child process and the pipes to it."""

    def __init__(self, command: Sequence[str], settings: BrickSettings) -> None:
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self._settings = settings
        self._ids = itertools.count(1)
        self._buffer = b""
        self.usable = True
        self.used_at = time.monotonic()
        self.pid = self._child.pid
        options = {
            "lock_path": settings.lock_path,
            "root_helper": settings.root_helper,
            "use_multipath": settings.use_multipath,
            "key_manager": asdict(settings.key_manager) if settings.key_manager is not None else None,
        }
        self._send(options)

    def call(self, request: Mapping[str, Any], *, locks: bool) -> Mapping[str, Any]:
        """Send a request and return its answer. `locks`: the call takes os-brick's lock.

        The process is not usable after a time-out or a death.
        """
        number = next(self._ids)
        if not self._send({"id": number, **request}):
            raise self._died()
        patience = _CallDeadline(self._settings, self.pid, locks=locks)
        while True:
            answer = self._answer(patience)
            if answer.get("id") == number:
                break
        if (error := answer.get("error")) is not None:
            outcome, reason = _ERRORS.get(str(error), (Outcome.BRICK_FAILED, Reason.BRICK_RAISED))
            raise StepFailedError(outcome, reason, str(answer.get("detail", "")))
        return answer

    def kill(self) -> None:
        """Kill the process group: os-brick's commands go, too."""
        self.usable = False
        with suppress(
            ProcessLookupError, PermissionError
        ):  # what is left of it may be root's helper, which is not ours
            os.killpg(self.pid, signal.SIGKILL)
        try:
            self._child.wait(_REAP)
        except subprocess.TimeoutExpired:
            LOG.error("os-brick process %d cannot be killed, because a device under it does not answer", self.pid)  # noqa: TRY400

    def release(self) -> None:
        """Close the pipes; by the thread that used them last."""
        for pipe in (self._child.stdin, self._child.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()

    def _send(self, message: Mapping[str, Any]) -> bool:
        stdin = self._child.stdin
        assert stdin is not None  # noqa: S101 - made with a pipe
        try:
            stdin.write(json.dumps(message).encode() + b"\n")
            stdin.flush()
        except (OSError, ValueError):
            return False
        return True

    def _answer(self, patience: "_CallDeadline") -> Mapping[str, Any]:
        stdout = self._child.stdout
        assert stdout is not None  # noqa: S101 - made with a pipe
        poll = select.poll()
        poll.register(stdout, select.POLLIN)
        while b"\n" not in self._buffer:
            if not poll.poll(patience.next_look() * 1000):
                if (stopped := patience.ends()) is not None:
                    self.usable = False
                    raise stopped
                continue
            more = os.read(stdout.fileno(), 65536)
            if not more or len(self._buffer) > _ANSWER_MAX:
                raise self._died()
            self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            answer = json.loads(line)
        except ValueError as ex:
            raise self._died() from ex
        return answer if isinstance(answer, Mapping) else {}

    def _died(self) -> StepFailedError:
        self.usable = False
        return StepFailedError(Outcome.BRICK_FAILED, Reason.BRICK_DIED)


class _CallDeadline:
    """The time left to a call. The wait for another process's lock is not the call's own time."""

    def __init__(self, settings: BrickSettings, pid: int, *, locks: bool) -> None:
        self._settings = settings
        self._pid = pid
        self._locks = locks
        self._looked = time.monotonic()
        self._own = 0.0
        self._waited = 0.0

    def next_look(self) -> float:
        """Return the seconds until `ends` is to be asked."""
        left = max(0.0, self._settings.limit - self._own)
        return min(_LOOK_AT_LOCK, left, self._settings.lock_limit) if self._locks else left

    def ends(self) -> StepFailedError | None:
        """Return the error with which the call ends now, None: it may go on."""
        now = time.monotonic()
        took, self._looked = now - self._looked, now
        holder = lock.holder(self._settings.lock_path) if self._locks else None
        if holder in {None, self._pid}:
            self._own += took
        else:
            self._waited += took
            if self._waited >= self._settings.lock_limit:
                who = lock.name_of(holder or 0)
                return StepFailedError(
                    Outcome.BRICK_FAILED, Reason.BRICK_LOCK_HELD, f"{who} holds the lock {lock.LOCK_FILE}"
                )
        if self._own >= self._settings.limit:
            return StepFailedError(Outcome.BRICK_FAILED, Reason.BRICK_TIMED_OUT)
        return None
