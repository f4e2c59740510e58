# SPDX-License-Identifier: Apache-2.0
"""Reads of storage with a deadline: a share, an array or a path that hangs costs its own volume a moment.

A read that hangs inside the kernel cannot be interrupted. So it runs in a thread of its own, which is abandoned at
the deadline. Until that thread returns, the same device or file is not read again, and `hostagent.storage` is not
ready. The check is made from the reads of this moment.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from prometheus_client import Gauge

from bridge.runtime.health import Check, Health

LOG = logging.getLogger(__name__)
T = TypeVar("T")

HEALTH: Final = "hostagent.storage"
_IDLE: Final = 30.0  # seconds a reading thread waits for the next read
_NAMED: Final = 5  # of the things that hang, in the check's reason


class StorageSilentError(Exception):
    """A read that was given up, or not begun because one like it hangs; the text is for a person."""


@dataclass(slots=True)
class _Read(Generic[T]):
    """One read on its way; `began` by time.monotonic."""

    about: str
    work: Callable[[], T]
    began: float = field(default_factory=time.monotonic)
    done: threading.Event = field(default_factory=threading.Event)
    value: T | None = None
    error: BaseException | None = None
    abandoned: bool = False


class StorageReads:
    """Runs reads within `limit` seconds; for several threads. At most `most` reads may hang at once."""

    def __init__(self, *, limit: float, most: int, health: Health, gauge: Gauge) -> None:
        self._limit = limit
        self._most = most
        self._gauge = gauge
        self._lock = threading.Lock()
        self._hanging: dict[str, _Read[Any]] = {}
        self._idle: list[queue.SimpleQueue[_Read[Any]]] = []
        self._names: tuple[str, ...] = ()
        health.state(HEALTH, self._state)

    def read(self, about: str, work: Callable[[], T], *, limit: float | None = None) -> T:
        """Return what `work` returns, or raise what it raises. `about` names what is read: a path, an image.

        Raises StorageSilentError after the limit, at once where `about` hangs already.
        """
        limit = self._limit if limit is None else limit
        self._check(about)
        read = _Read(about, work)
        self._begin(read)
        if not read.done.wait(limit) and self._abandon(read):
            raise StorageSilentError(f"{about} does not answer within {limit:g} s")
        if read.error is not None:
            raise read.error
        return read.value  # type: ignore[return-value]  # set where there is no error

    def hanging(self) -> tuple[str, ...]:
        """Return what is being read by threads that were left behind."""
        with self._lock:
            return tuple(sorted(self._hanging))

    def _check(self, about: str) -> None:
        with self._lock:
            if (earlier := self._hanging.get(about)) is not None:
                since = time.monotonic() - earlier.began
                raise StorageSilentError(
                    f"{about} does not answer: an earlier read of it has hung for {since:.0f} s"
                )
            if len(self._hanging) >= self._most:
                raise StorageSilentError(f"{about} is not read: {len(self._hanging)} other reads of storage hang")

    def _begin(self, read: _Read[Any]) -> None:
        """Hand the read to an idle thread, or to a new one."""
        with self._lock:
            jobs = self._idle.pop() if self._idle else None
        if jobs is None:
            jobs = queue.SimpleQueue()
            threading.Thread(target=self._serve, args=(jobs,), name="storage-read", daemon=True).start()
        jobs.put(read)

    def _serve(self, jobs: "queue.SimpleQueue[_Read[Any]]") -> None:
        """Do reads until none came for a while; a thread that was left behind ends with its read."""
        while True:
            try:
                read = jobs.get(timeout=_IDLE)
            except queue.Empty:
                with self._lock:
                    if jobs in self._idle:
                        self._idle.remove(jobs)
                        return
                continue  # a read is on its way to this thread
            if not self._run(read, jobs):
                return
            del read

    def _run(self, read: _Read[Any], jobs: "queue.SimpleQueue[_Read[Any]]") -> bool:
        """Do one read; return False where no caller waits for it any more."""
        try:
            read.value = read.work()
        except BaseException as ex:  # noqa: BLE001 - the caller's, who gets it in his own thread
            read.error = ex
        with self._lock:
            read.done.set()
            if not read.abandoned:
                self._idle.append(jobs)
                return True
            if self._hanging.get(read.about) is read:
                del self._hanging[read.about]
            LOG.info("%s answers again after %.0f s", read.about, time.monotonic() - read.began)
            self._show()
            return False

    def _abandon(self, read: _Read[Any]) -> bool:
        """Leave the read behind; False where it returned in the last moment."""
        with self._lock:
            if read.done.is_set():
                return False
            read.abandoned = True
            self._hanging.setdefault(read.about, read)
            LOG.warning("a read of %s does not return and is abandoned", read.about)
            self._show()
            return True

    def _show(self) -> None:
        self._gauge.set(len(self._hanging))
        self._names = tuple(sorted(self._hanging))

    def _state(self) -> Check:
        """Return the state of the reads now; takes no lock."""
        names = self._names
        if not names:
            return Check(True, "ok")
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return Check(False, f"storage does not answer: {', '.join(names[:_NAMED])}{more}")
