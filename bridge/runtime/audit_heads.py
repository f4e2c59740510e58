# SPDX-License-Identifier: Apache-2.0
"""The proof of an audit log: its key, and its newest head kept out of reach of a person who edits the log."""

import logging
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bridge.core.audit import ChainHead
from bridge.core.errors import ConfigError

LOG = logging.getLogger(__name__)
_KEY_MIN, _KEY_MAX = 16, 4096
_LAST_HEAD: Final = 5.0  # seconds the last head may take at the end of a process

KeepHead = Callable[[ChainHead], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditProof:
    """The proof of the log: the key of its chain, the store of its heads, and their interval in seconds."""

    key: bytes | None = None
    keep: KeepHead | None = None
    every: float = 1.0


class HeadKeeper:
    """The thread that keeps the newest head of one log, at most once in each interval.

    The log sets `news` at each line. `newest(final)` returns the head of the newest line; None before the first.
    """

    def __init__(
        self, part: str, proof: AuditProof, news: threading.Event, newest: Callable[[bool], ChainHead | None]
    ) -> None:
        self._part = part
        self._proof = proof
        self._news = news
        self._newest = newest
        self._closed = threading.Event()
        self._failed = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, unless it was started. A process that forks calls this in the child."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"audit-heads-{self._part}", daemon=True)
            self._thread.start()

    def keep_beside(self, head: ChainHead) -> None:
        """Keep this head in a thread of its own, without waiting for it."""
        threading.Thread(target=self._keep, args=(head,), name="audit-heads-rotated", daemon=True).start()

    def close(self) -> None:
        """Keep the last head; wait a few seconds for it at most."""
        self._closed.set()
        self._news.set()
        if self._thread is not None:
            self._thread.join(_LAST_HEAD)

    def _run(self) -> None:
        while True:
            self._news.wait()
            self._news.clear()
            final = self._closed.is_set()
            head = self._newest(final)
            kept = head is None or self._keep(head)
            if final:
                return
            self._closed.wait(self._proof.every)
            if not kept:
                self._news.set()

    def _keep(self, head: ChainHead) -> bool:
        assert self._proof.keep is not None  # noqa: S101 - only made where there is one
        try:
            self._proof.keep(head)
        except Exception as ex:  # noqa: BLE001 - whatever a database driver raises: the log goes on without
            if not self._failed:
                LOG.warning(
                    "the newest hash of the audit log could not be stored and is tried again: %s", type(ex).__name__
                )
            self._failed = True
            return False
        self._failed = False
        return True


def log_head(head: ChainHead) -> None:
    """Keep a head in the daemon's own log, if there is no journal for it."""
    LOG.info("%s", head.to_text())


def read_key(path: str | None) -> bytes | None:
    """Read [audit] key_file: at least 16 bytes that others on this machine cannot read. Raises ConfigError."""
    if not path:
        return None
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as ex:
        raise ConfigError(f"[audit] key_file {path} cannot be read: {ex.strerror}") from ex
    with os.fdopen(fd, "rb") as file:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode) or mode & 0o007:
            raise ConfigError(f"[audit] key_file {path}: must be a file that others cannot read (chmod o= {path})")
        key = file.read(_KEY_MAX + 1).strip()
    if not _KEY_MIN <= len(key) <= _KEY_MAX:
        raise ConfigError(f"[audit] key_file {path}: must hold {_KEY_MIN} to {_KEY_MAX} bytes")
    return key
