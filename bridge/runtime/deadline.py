# SPDX-License-Identifier: Apache-2.0
"""Deadlines for calls that have none of their own: a thread breaks a late call.

    with deadlines.within(15, connection.shutdown) as deadline:
        ...                       # blocks in a driver
    deadline.expired              # the call was broken

Timeouts of sockets count anew with each byte, so a peer that drips is waited for without end. A deadline here is
total. Breaking means shutting the socket down: the blocked call then fails with the driver's own error.
"""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

LOG = logging.getLogger(__name__)

_LOOK_EVERY: Final = 0.25


class Deadline:
    """One call that must end in time."""

    def __init__(self, at: float, cut: Callable[[], object] | None) -> None:
        self.expired = False
        """True after the deadline, when `cut` has been called."""
        self._at = at
        self._cut = cut
        self._over = False
        self._lock = threading.Lock()

    @property
    def left(self) -> float:
        """Seconds until the deadline; below 0 after it."""
        return self._at - time.monotonic()

    def cut_by(self, cut: Callable[[], object]) -> None:
        """Replace the function that breaks the call; after the deadline call it at once."""
        with self._lock:
            self._cut = cut
            if self.expired and not self._over:
                _safely(cut)

    def look(self, now: float) -> None:
        """Break the call if it is late."""
        with self._lock:
            if self._over or self.expired or now < self._at:
                return
            self.expired = True
            if self._cut is not None:
                _safely(self._cut)

    def end(self) -> None:
        """Mark the call as returned: nothing is broken after this."""
        with self._lock:
            self._over = True


class Deadlines:
    """The calls of a process, watched by one thread, which starts at first use, also after a fork."""

    def __init__(self, *, every: float = _LOOK_EVERY) -> None:
        self._every = every
        self._pid = 0
        self._starting = threading.Lock()
        self._calls: dict[int, Deadline] = {}

    @contextlib.contextmanager
    def within(self, seconds: float, cut: Callable[[], object] | None = None) -> Iterator[Deadline]:
        """Call `cut` in another thread unless the block ends within `seconds`."""
        if self._pid != os.getpid():
            self._start()
        deadline = Deadline(time.monotonic() + seconds, cut)
        self._calls[id(deadline)] = deadline
        try:
            yield deadline
        finally:
            deadline.end()
            del self._calls[id(deadline)]

    def _start(self) -> None:
        with self._starting:
            if self._pid == os.getpid():
                return
            self._calls = {}
            threading.Thread(target=self._watch, args=(self._calls,), name="deadlines", daemon=True).start()
            self._pid = os.getpid()

    def _watch(self, calls: dict[int, Deadline]) -> None:
        while True:
            time.sleep(self._every)
            now = time.monotonic()
            for deadline in calls.copy().values():
                deadline.look(now)


def _safely(cut: Callable[[], object]) -> None:
    try:
        cut()
    except Exception as ex:  # noqa: BLE001 - a call that has just returned may break in any way of its library
        LOG.debug("a late call could not be broken: %s", ex)


DEADLINES: Final = Deadlines()
"""The deadlines of this process."""
