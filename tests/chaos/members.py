# SPDX-License-Identifier: Apache-2.0
"""What can be killed: a process of ours, a broker node, a database; all with the same few verbs."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

_DRAIN: Final = 30.0  # seconds; longer than a daemon's own grace time
_START_AGAIN: Final = 1.0
_START_TRIES: Final = 8


class Member(Protocol):
    """One of a run's parts. Whoever does something to it holds its lock."""

    lock: threading.RLock

    def start(self) -> None:
        """Start it; a server is waited for."""

    def die(self) -> None:
        """As a power cut."""

    def end(self) -> None:
        """As an operator stops it."""

    def freeze(self) -> None:
        """As a machine that stands still."""

    def thaw(self) -> None:
        """It goes on."""


class Daemon:
    """A process of ours, its output in `log`. `rough`: how often it did not end well when it was told to."""

    def __init__(self, name: str, conf: Path, log: Path, environment: Mapping[str, str], ops_port: int) -> None:
        self.name = name
        self.ops_port = ops_port
        self.lock = threading.RLock()
        self._command = [
            sys.executable, "-m", "tests.chaos.part", name.rpartition("-")[0], "--config-file", str(conf),
        ]  # fmt: skip
        self._log = log
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self.rough = 0

    def start(self) -> None:
        """See Member."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=self._environment,
                start_new_session=True,
            )  # fmt: skip

    def die(self) -> None:
        """See Member."""
        self._signal(signal.SIGKILL)
        self._reap()

    def end(self) -> None:
        """See Member; one that does not end in time is killed."""
        self._signal(signal.SIGTERM)
        if self._reap() not in {None, 0}:
            self.rough += 1

    def freeze(self) -> None:
        """See Member."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """See Member."""
        self._signal(signal.SIGCONT)

    def tracebacks(self) -> int:
        """How many it wrote: each an error the code has no words for."""
        return self._log.read_bytes().count(b"Traceback (most recent call last)") if self._log.exists() else 0

    def ended(self) -> int | None:
        """The exit code of one that ended without being told to."""
        return self._process.poll() if self._process is not None else None

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _reap(self) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        try:
            process.wait(_DRAIN)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


class Startable(Protocol):
    """A server of tests/lab."""

    @property
    def pid(self) -> int | None:
        """Of its process group."""

    def start(self) -> object:
        """Start and wait."""

    def stop(self) -> None:
        """As an operator does."""

    def kill(self) -> None:
        """As a power cut does."""


class Server:
    """A broker node or a database server."""

    def __init__(self, server: Startable) -> None:
        self.lock = threading.RLock()
        self._server = server

    def start(self) -> None:
        """See Member. What a killed one has left behind may be in the way for a moment."""
        for _ in range(_START_TRIES - 1):
            try:
                self._server.start()
                return
            except RuntimeError:
                self._server.kill()
                time.sleep(_START_AGAIN)
        self._server.start()

    def die(self) -> None:
        """See Member."""
        self._server.kill()

    def end(self) -> None:
        """See Member."""
        self._server.stop()

    def freeze(self) -> None:
        """See Member."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """See Member."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self._server.pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._server.pid, number)
