# SPDX-License-Identifier: Apache-2.0
"""Where audit records go: a file that logrotate may move away, systemd's journal, or standard error.

A line that cannot be written (disk full, directory gone) is counted and said once; it never stops the work.
"""

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from bridge.core.audit import AuditRecord
from bridge.core.errors import ConfigError

LOG = logging.getLogger(__name__)
_LOOK_EVERY = 1.0  # seconds between looks whether the file was moved away
JOURNALD: Final = "/run/systemd/journal/socket"
_FIELDS: Final = ("event", "server", "volume", "host", "extend_id", "request_id", "global_request_id", "reason")


class AuditLog(Protocol):
    """Takes records; never raises."""

    def write(self, *records: AuditRecord) -> None:
        """Write one line per record."""


class StreamAudit:
    """Audit lines of one part of the bridge, to a file or standard error. Safe for several threads."""

    def __init__(
        self, part: str, path: str | None = None, *, on_lost: Callable[[int], None] = lambda _: None
    ) -> None:
        """`on_lost` is told how many lines could not be written."""
        self._part = part
        self._on_lost = on_lost
        self._path = Path(path) if path else None
        self._lock = threading.Lock()
        self._stream: BinaryIO | None = None
        self._looked = 0.0
        self.lost = 0
        if self._path is not None:
            try:
                self._open()
            except OSError as ex:
                raise ConfigError(f"the audit log {path} cannot be written: {ex.strerror}") from ex

    def write(self, *records: AuditRecord) -> None:
        """One line per record, in one write."""
        self._write("".join(f"{record.to_line(self._part)}\n" for record in records).encode(), len(records))

    def _write(self, text: bytes, lines: int) -> None:
        if not text:
            return
        with self._lock:
            try:
                stream = self._current()
                stream.write(text)
                stream.flush()
            except (OSError, ValueError) as ex:
                if self.lost == 0:
                    LOG.error("the audit log cannot be written, lines are lost: %s", ex)  # noqa: TRY400
                self.lost += lines
                self._on_lost(lines)
                self._stream = None

    def _current(self) -> BinaryIO:
        if self._path is None:
            return sys.stderr.buffer
        now = time.monotonic()
        if self._stream is None or now - self._looked >= _LOOK_EVERY:
            self._looked = now
            if self._stream is None or _moved(self._stream, self._path):
                return self._open()
        return self._stream

    def _open(self) -> BinaryIO:
        assert self._path is not None  # noqa: S101 - only called where there is a path
        if self._stream is not None:
            self._stream.close()
        self._stream = self._path.open("ab", buffering=0)
        return self._stream


class JournalAudit:
    """Audit lines of one part to systemd's journal, in its native protocol: one entry a line, its ids as fields.

    Datagrams that never wait: what a stalled journald does not take is counted as lost. Safe for several threads.
    """

    def __init__(
        self, part: str, address: str = JOURNALD, *, on_lost: Callable[[int], None] = lambda _: None
    ) -> None:
        """`on_lost` as for StreamAudit; raises ConfigError where there is no journal."""
        self._part, self._address, self._on_lost = part, address, on_lost
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        self.lost = 0
        if not Path(address).exists():
            raise ConfigError(f"[audit] journald: there is no journal at {address}; set [audit] file")

    def write(self, *records: AuditRecord) -> None:
        """One entry per record."""
        for record in records:
            try:
                self._socket.sendto(self._entry(record), self._address)
            except OSError as ex:
                if self.lost == 0:
                    LOG.error("the journal does not take the audit log, lines are lost: %s", ex)  # noqa: TRY400
                self.lost += 1
                self._on_lost(1)

    def _entry(self, record: AuditRecord) -> bytes:
        fields = {
            "MESSAGE": record.to_line(self._part),
            "PRIORITY": "6",
            "SYSLOG_IDENTIFIER": "extend-bridge-audit",
            "EXTEND_BRIDGE_PART": self._part,
            **{f"EXTEND_BRIDGE_{name.upper()}": getattr(record, name) for name in _FIELDS},
        }
        told = (f"{name}={value}\n" for name, value in fields.items() if value and "\n" not in value)
        return "".join(told).encode(errors="replace")


def open_audit(
    part: str, path: str | None, *, journald: bool = False, on_lost: Callable[[int], None] = lambda _: None
) -> AuditLog:
    """The audit log of one part as [audit] says; raises ConfigError."""
    if journald and path:
        raise ConfigError("[audit] file and journald: set one of them")
    return JournalAudit(part, on_lost=on_lost) if journald else StreamAudit(part, path, on_lost=on_lost)


def _moved(stream: BinaryIO, path: Path) -> bool:
    try:
        here, there = os.fstat(stream.fileno()), path.stat()
    except FileNotFoundError:
        return True
    return (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino)
