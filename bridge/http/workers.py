# SPDX-License-Identifier: Apache-2.0
"""The threads that answer requests, some of them reserved for paths that must never wait behind others."""

import logging
import queue
import threading
import time
from typing import Any, Final, Protocol

LOG = logging.getLogger(__name__)

_CUT_OFF_SECONDS: Final = 1.0
"""The time in which a worker must end after its connection was cut."""


class Answerable(Protocol):
    """A connection whose request has come as a whole."""

    reserved: bool
    """The flag of a request for a reserved path."""

    def abandoned(self) -> bool:
        """Return True where the client has gone."""

    def communicate(self) -> Any:
        """Answer the request; return True where the connection is to be kept."""

    def cut(self) -> None:
        """Break the connection off, and drop unsent bytes."""

    def close(self) -> None:
        """Close the connection after its answer."""


class Keeper(Protocol):
    """The server, which takes connections back."""

    def put_conn(self, conn: Any) -> None:
        """Wait for the connection's next event."""


class RequestWorkers:
    """The two groups of threads, each with a queue, in the place of cheroot's thread pool."""

    def __init__(self, server: Keeper, threads: int, reserved: int) -> None:
        self._server = server
        self._queues: dict[bool, queue.SimpleQueue[Answerable | None]] = {
            False: queue.SimpleQueue(),
            True: queue.SimpleQueue(),
        }
        self._count = {False: threads, True: reserved}
        self._threads: list[threading.Thread] = []
        self._busy: dict[threading.Thread, Answerable] = {}

    def start(self) -> None:
        """Do nothing, because cheroot calls this when it binds, and a start may still fail then."""

    def begin(self) -> None:
        """Start the threads of both groups."""
        for reserved, count in self._count.items():
            for n in range(count):
                name = f"http-{'reserved-' if reserved else ''}{n}"
                thread = threading.Thread(target=self._work, args=(self._queues[reserved],), name=name, daemon=True)
                self._threads.append(thread)
                thread.start()

    def put(self, conn: Answerable) -> None:
        """Queue a request for the threads of its group."""
        self._queues[conn.reserved and self._count[True] > 0].put(conn)

    def stop(self, timeout: float | None = None) -> None:
        """End the threads; a request in work gets `timeout` seconds, then its connection is cut."""
        for reserved, count in self._count.items():
            for _ in range(count):
                self._queues[reserved].put(None)
        deadline = time.monotonic() + (timeout or 0)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for conn in list(self._busy.values()):
            conn.cut()
        for thread in self._threads:
            thread.join(_CUT_OFF_SECONDS)
        self._threads = []

    def _work(self, waiting: "queue.SimpleQueue[Answerable | None]") -> None:
        me = threading.current_thread()
        while (conn := waiting.get()) is not None:
            self._busy[me] = conn
            try:
                self._answer(conn)
            except Exception:
                LOG.exception("a request could not be answered")
            finally:
                self._busy.pop(me, None)

    def _answer(self, conn: Answerable) -> None:
        keep = False
        try:
            keep = not conn.abandoned() and bool(conn.communicate())
        finally:
            if keep:
                self._server.put_conn(conn)
            else:
                conn.close()
