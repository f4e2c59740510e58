# SPDX-License-Identifier: Apache-2.0
"""A server of the lab: one process group, its output in one file, waited for until it answers."""

import os
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.lab.leftovers import RUN
from tests.lab.waiting import until

_SHOWN: Final = 2000  # characters of the output of a server that did not start
_STOP_SECONDS: Final = 30.0


class InBlock(ABC):
    """A server of the lab that runs for the length of a `with` block; one that does not start is removed."""

    @abstractmethod
    def start(self) -> Self:
        """Start the server and wait until it answers."""

    @abstractmethod
    def close(self) -> None:
        """Stop the server and remove its directory."""

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ServerProcess:
    """One server, started and stopped at will. `name` is for messages, `output` takes what the server prints."""

    def __init__(self, name: str, output: Path) -> None:
        self.name = name
        self.output = output
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Return the pid, which is also the process group; None while the server is stopped."""
        return self._process.pid if self._process is not None else None

    @property
    def running(self) -> bool:
        """Return whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def start(
        self,
        command: Sequence[str],
        *,
        answers: Callable[[], bool],
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> None:
        """Start the server and wait until it answers; raises RuntimeError with the end of its output."""
        if environment is not None and RUN in os.environ:
            environment = {**environment, RUN: os.environ[RUN]}
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                command, env=environment, cwd=directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        try:
            until(lambda: not self.running or answers(), f"{self.name} answers")
        except AssertionError as ex:
            raise RuntimeError(f"{ex}\n{self.said()}") from ex
        if not self.running:
            raise RuntimeError(f"{self.name} did not start:\n{self.said()}")

    def said(self) -> str:
        """Return the end of the output."""
        return self.output.read_text(errors="replace")[-_SHOWN:] if self.output.exists() else ""

    def send(self, number: int) -> None:
        """Send a signal to the server alone, not to its children."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Send a signal to the process group and wait until the group is gone; one that hangs is killed."""
        process, self._process = self._process, None
        if process is None:
            return
        _kill(process.pid, number)
        _kill(process.pid, signal.SIGCONT)  # a frozen server hears nothing else

        def gone() -> bool:
            return process.poll() is not None and not _kill(process.pid, 0)

        try:
            until(gone, f"{self.name} ends", seconds=_STOP_SECONDS)
        except AssertionError:
            _kill(process.pid, signal.SIGKILL)
            process.wait()


def _kill(group: int, number: int) -> bool:
    """Send a signal to a process group; False when the group is gone."""
    with suppress(ProcessLookupError):
        os.killpg(group, number)
        return True
    return False
