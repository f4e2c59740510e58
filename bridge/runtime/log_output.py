# SPDX-License-Identifier: Apache-2.0
"""Output of logs that never stops the work: a reader that does not read, a full disk, a directory that is gone.

A pipe or a socket is written only where it takes a piece at once. A reader that stalls is waited for once, for a
moment; then its lines are dropped and counted until it reads again. An error of a handler never reaches the code
that logged; it is said on standard error, at most once a minute.
"""

import logging
import os
import select
import stat
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

_PIECE: Final = 4096  # bytes; a pipe that is ready to be written takes so many without waiting
_PATIENCE: Final = 0.5
"""Seconds that a reader may keep one write waiting, unless it is known to stall."""
_SAY_EVERY: Final = 60.0


class Output:
    """A descriptor for lines, safe for several threads. A stalled reader costs nothing but its lines."""

    def __init__(self, descriptor: int, *, patience: float = _PATIENCE) -> None:
        self._descriptor = descriptor
        self._patience = patience
        self._lock = threading.Lock()
        self._stalled = False
        mode = os.fstat(descriptor).st_mode
        self._waits = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def put(self, data: bytes) -> int:
        """Write lines and return the number of bytes written: fewer than given where the reader does not read."""
        with self._lock:
            if not self._waits:
                return os.write(self._descriptor, data)
            until = time.monotonic() + (0.0 if self._stalled else self._patience)
            written, self._stalled = 0, False
            while written < len(data):
                if not self._poll.poll(max(0, round((until - time.monotonic()) * 1000))):
                    self._stalled = True
                    break
                written += os.write(self._descriptor, data[written : written + _PIECE])
            return written


class OutputStream:
    """The text stream of a log handler over an Output. Dropped lines are said when the reader is back."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._dropped = 0
        self._torn = False

    def write(self, text: str) -> int:
        """Write a line, or drop it."""
        lost = (
            f"{self._dropped} lines of this log were dropped: their reader did not read\n" if self._dropped else ""
        )
        data = f"{chr(10) if self._torn else ''}{lost}{text}".encode(errors="backslashreplace")
        written = self._output.put(data)
        if written == len(data):
            self._dropped, self._torn = 0, False
        else:
            self._dropped += 1
            self._torn = self._torn if not written else not data[:written].endswith(b"\n")
        return len(text)

    def flush(self) -> None:
        """Do nothing, because nothing is kept back."""


class _Errors:
    """Errors of log handlers, said on standard error at most once a minute."""

    def __init__(self) -> None:
        self._said_at = -_SAY_EVERY
        self._unsaid = 0

    def say(self, error: BaseException | None) -> None:
        """Count a line that could not be written, and say so now and then."""
        self._unsaid += 1
        now = time.monotonic()
        if now - self._said_at < _SAY_EVERY:
            return
        self._said_at, count, self._unsaid = now, self._unsaid, 0
        try:
            output_of(sys.stderr.fileno()).put(f"{count} log lines could not be written: {error}\n".encode())
        except (AttributeError, OSError, ValueError):
            return  # then there is no place left to say it


def output_of(descriptor: int) -> Output:
    """Return the output of a descriptor; one for the process, because a stall is one for all its writers."""
    with _making:
        found = _outputs.get(descriptor)
        if found is None:
            found = _outputs[descriptor] = Output(descriptor)
        return found


_making = threading.Lock()
_outputs: dict[int, Output] = {}


def install() -> None:
    """Make the handlers of the root logger safe: call it after the logs are set up."""
    errors = _Errors()
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream in {sys.stderr, sys.stdout}:
            # a test's own stream has no descriptor, and a process may have been started without one
            with suppress(AttributeError, OSError, ValueError):
                handler.setStream(OutputStream(output_of(handler.stream.fileno())))
        handler.handleError = partial(_on_error, errors)  # type: ignore[method-assign]
        handler.emit = partial(_emit, handler.emit, errors)  # type: ignore[method-assign]


def _on_error(errors: _Errors, _record: logging.LogRecord) -> None:
    errors.say(sys.exception())


def _emit(emit: Callable[[logging.LogRecord], None], errors: _Errors, record: logging.LogRecord) -> None:
    try:
        emit(record)
    except OSError as ex:  # of a file whose directory is gone or read-only when the file is opened anew
        errors.say(ex)
