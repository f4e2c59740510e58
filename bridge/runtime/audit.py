# SPDX-License-Identifier: Apache-2.0
"""Destinations of audit records: a file that logrotate may move away, systemd's journal, or standard error.

A line that cannot be written (disk full, directory gone) is counted and reported once. Such a line never stops the
work. Each log is one writer of the hash chain in bridge.core.audit. On a frozen disk one thread waits for the
kernel. The others lose their lines after a moment, and the check of the log says so.
"""

import errno
import io
import logging
import os
import secrets
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from bridge.core.audit import AuditRecord, ChainHead, ChainState, key_name, read_link
from bridge.core.errors import ConfigError
from bridge.runtime.audit_heads import AuditProof, HeadKeeper
from bridge.runtime.health import Check
from bridge.runtime.log_output import Output, output_of

LOG = logging.getLogger(__name__)
_LOOK_EVERY = 1.0  # seconds between looks whether the file was moved away
_MODE: Final = 0o640
_TAIL: Final = 64 * 1024  # bytes of a file that are searched for other writers' last lines
_SEEN_MAX: Final = 64
_STANDARD: Final = {"/dev/stdout": 1, "/dev/stderr": 2}  # links, in every container
JOURNALD: Final = "/run/systemd/journal/socket"
_FIELDS: Final = ("event", "server", "volume", "host", "extend_id", "request_id", "global_request_id", "reason")

_WRITE_LIMIT: Final = 2.0  # seconds a thread waits for another one's write
_SAID: Final = 600.0  # seconds lost lines are said in health, unless a line is written before

Lost = Callable[[int], None]


class AuditLog(Protocol):
    """A log of audit records; never raises."""

    def write(self, *records: AuditRecord) -> None:
        """Write one line per record."""


class _Writer:
    """The chain of one log, and where its newest line is. The caller holds `lock` at each call but close()."""

    def __init__(self, part: str, proof: AuditProof, path: str = "") -> None:
        self.chain = ChainState(secrets.token_hex(8), proof.key)
        self.lock = threading.Lock()
        self._path = path
        self._part = part
        self._host = socket.gethostname()
        self._key_name = key_name(proof.key)
        self._file = ""
        self._at = 0.0
        self._news = threading.Event()
        self._keeper = HeadKeeper(part, proof, self._news, self._newest) if proof.keep is not None else None

    def opening(self, file: str, seen: Sequence[str] = ()) -> dict[str, Any]:
        """Return the writer's fields for the first line of a file, from which on heads are kept."""
        if self._keeper is not None:
            self._keeper.start()
        fields: dict[str, Any] = {"host": self._host, "pid": os.getpid()}
        if file:
            fields["file"] = file
        if self._key_name:
            fields["key"] = self._key_name
        if seen:
            fields["seen"] = list(seen)
        return fields

    def wrote(self, count: int, newest: str, offset: int | None, file: str, at: float) -> None:
        """Remember written lines, the newest of the time `at`."""
        self.chain.wrote(count, newest, offset)
        self._file, self._at = file, at
        if not self._news.is_set():
            self._news.set()

    def rotated(self) -> None:
        """Keep the head of the file that is left now."""
        if self._keeper is not None and (head := self.head()) is not None:
            self._keeper.keep_beside(head)

    def close(self) -> None:
        """Keep the last head; wait a few seconds for it at most."""
        if self._keeper is not None:
            self._keeper.close()

    def _newest(self, final: bool) -> ChainHead | None:
        with self.lock:
            return self.head(final=final)

    def head(self, *, final: bool = False) -> ChainHead | None:
        """Return the newest line's head; None before the first line."""
        if self.chain.seq == 0:
            return None
        return ChainHead(
            writer=self.chain.writer, seq=self.chain.seq - 1, hash=self.chain.hash, part=self._part,
            host=self._host, file=self._file, at=self._at, offset=self.chain.offset, final=final,
            path=self._path,
        )  # fmt: skip


class StreamAudit:
    """Audit lines of one part of the bridge, to a file or standard error. Safe for several threads."""

    def __init__(
        self, part: str, path: str | None = None, *, on_lost: Lost = lambda _: None, proof: AuditProof | None = None
    ) -> None:
        """Open the file of `path`, if given. `on_lost` is called with the number of lines that are lost."""
        self._part = part
        self._on_lost = on_lost
        self._path = path
        name = os.path.abspath(path) if path is not None else ""  # noqa: PTH100 - links stay
        self._writer = _Writer(part, proof or AuditProof(), name)
        self._fd: int | None = None
        self._output: Output | None = None
        self._file = ""
        self._end = 0
        self._fresh = True
        self._torn = False
        self._looked = 0.0
        self._writing_at: float | None = None
        self._lost_at: float | None = None
        self._counting = threading.Lock()
        self._unsaid = 0  # lost lines that no line says yet; threads that cannot write add to it
        self.lost = 0
        if path is not None:
            try:
                self._open(path)
            except OSError as ex:
                raise ConfigError(f"the audit log {path} cannot be written: {_why(ex)}") from ex

    def write(self, *records: AuditRecord) -> None:
        """Write one line per record, in one write."""
        if records:
            lines = [record.to_line(self._part) for record in records]
            if LOG.isEnabledFor(logging.DEBUG):
                for record in records:
                    LOG.debug("%s", record.words())
            began = self._writing_at
            late = began is not None and time.monotonic() - began > _WRITE_LIMIT
            if not self._writer.lock.acquire(timeout=0 if late else _WRITE_LIMIT):
                self._lose(len(lines), TimeoutError("an earlier write has not returned"))
                return
            try:
                self._writing_at = time.monotonic()
                self._write(lines, records[-1].at)
            finally:
                self._writing_at = None
                self._writer.lock.release()

    def state(self) -> Check:
        """Return whether lines are written, for Health; takes no lock."""
        began = self._writing_at
        if began is not None and (since := time.monotonic() - began) > _WRITE_LIMIT:
            return Check(False, f"{self._path}: a write has not returned for {since:.0f} s; lines are lost")
        return _state(self._path or "standard error", self.lost, self._lost_at)

    def close(self) -> None:
        """Keep the head of the last line. A later line is still written."""
        self._writer.close()

    def _write(self, lines: list[str], at: float) -> None:
        written, linked, data, error = 0, [], b"", None
        with self._counting:
            self._writer.chain.lost += self._unsaid
            self._unsaid = 0
        try:
            fd = self._current()
            linked = self._writer.chain.link(lines, self._opening() if self._fresh else None)
            data = linked[0][0] if len(linked) == 1 else b"".join([line for line, _ in linked])
            if self._torn:
                data = b"\n" + data
            written = self._put(fd, data)
        except (OSError, ValueError) as ex:
            error = ex
        if linked and written == len(data):
            self._remember(len(lines), linked[-1][1], written - self._torn, at)
            self._torn = False
            self._lost_at = None
            return
        count = self._complete(linked, written)
        if count:
            self._remember(count, linked[count - 1][1], written - self._torn, at)
        if written:
            self._torn = not data[:written].endswith(b"\n")
        self._lose(len(lines) - count, error)

    def _put(self, fd: int | None, data: bytes) -> int:
        if fd is not None and self._file:
            return os.write(fd, data)  # in one piece, or the disk is full
        try:
            return (self._output or output_of(sys.stderr.fileno())).put(data)
        except (AttributeError, io.UnsupportedOperation):  # a stream of a program that has replaced it
            sys.stderr.write(data.decode())
            return len(data)

    def _complete(self, linked: Sequence[tuple[bytes, str]], written: int) -> int:
        """Return the number of written lines; a line without its newline gets the newline with the next line."""
        end, count = int(self._torn), 0
        for line, _ in linked:
            end += len(line)
            if written < end - 1:
                break
            count += 1
        return count

    def _remember(self, count: int, newest: str, size: int, at: float) -> None:
        offset = None
        if self._fd is not None and self._file:
            self._end = os.lseek(self._fd, 0, os.SEEK_CUR)  # after the appended lines
            offset = self._end - size
        self._writer.wrote(count, newest, offset, self._file, at)
        self._fresh = False

    def _lose(self, lines: int, error: Exception | None) -> None:
        if self.lost == 0:
            LOG.error("the audit log cannot be written, lines are lost: %s", error or "the disk is full")
        self._lost_at = time.monotonic()
        with self._counting:
            self.lost += lines
            self._unsaid += lines
        self._on_lost(lines)
        self._looked = 0.0  # makes the next write check whether the file is still the right one

    def _current(self) -> int | None:
        if self._path is None:
            return None
        now = time.monotonic()
        if self._fd is None or now - self._looked >= _LOOK_EVERY:
            if self._fd is None or _moved(self._fd, self._path):
                self._open(self._path)
            elif self._file and os.fstat(self._fd).st_size < self._end:
                self._fresh = True  # truncated in place
            self._looked = now
        return self._fd

    def _open(self, path: str) -> None:
        if self._fd is not None:
            self._writer.rotated()
            os.close(self._fd)
            self._fd = None
        self._fd = _open_file(path)
        found = os.fstat(self._fd)
        regular = stat.S_ISREG(found.st_mode)
        self._file = f"{found.st_dev:x}-{found.st_ino:x}" if regular else ""
        self._output = None if regular else Output(self._fd)
        self._end = 0
        self._fresh, self._torn = True, False

    def _opening(self) -> dict[str, Any]:
        seen = _last_lines(self._fd, self._writer.chain.writer) if self._fd is not None and self._file else []
        return self._writer.opening(self._file, seen)


class JournalAudit:
    """Audit lines of one part to systemd's journal, in its native protocol: one entry a line, its ids as fields.

    Datagrams never wait: an entry that a stalled journald does not take is counted as lost. Safe for several
    threads.
    """

    def __init__(
        self,
        part: str,
        address: str = JOURNALD,
        *,
        on_lost: Lost = lambda _: None,
        proof: AuditProof | None = None,
    ) -> None:
        """Open the socket. `on_lost` works like StreamAudit's; raises ConfigError without a journal."""
        self._part, self._address, self._on_lost = part, address, on_lost
        self._writer = _Writer(part, proof or AuditProof())
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        self._lost_at: float | None = None
        self.lost = 0
        if not Path(address).exists():
            raise ConfigError(
                f"[audit] journald: systemd's journal is not available at {address}; set [audit] file"
            )

    def write(self, *records: AuditRecord) -> None:
        """Write one entry per record."""
        for record in records:
            with self._writer.lock:
                self._write(record)

    def state(self) -> Check:
        """Return whether entries are taken, for Health."""
        return _state(f"the journal at {self._address}", self.lost, self._lost_at)

    def close(self) -> None:
        """Keep the head of the last line."""
        self._writer.close()

    def _write(self, record: AuditRecord) -> None:
        chain = self._writer.chain
        opens = self._writer.opening("") if chain.seq == 0 else None
        line, digest = chain.link([record.to_line(self._part)], opens)[0]
        try:
            self._socket.sendto(self._entry(record, line.decode()[:-1]), self._address)
        except OSError as ex:
            if self.lost == 0:
                LOG.error("systemd's journal does not accept audit lines, lines are lost: %s", ex)  # noqa: TRY400
            self.lost += 1
            chain.lost += 1
            self._lost_at = time.monotonic()
            self._on_lost(1)
            return
        self._lost_at = None
        self._writer.wrote(1, digest, None, "", record.at)

    def _entry(self, record: AuditRecord, line: str) -> bytes:
        fields = {
            "MESSAGE": line,
            "PRIORITY": "6",
            "SYSLOG_IDENTIFIER": "extend-bridge-audit",
            "EXTEND_BRIDGE_PART": self._part,
            **{f"EXTEND_BRIDGE_{name.upper()}": getattr(record, name) for name in _FIELDS},
        }
        told = (f"{name}={value}\n" for name, value in fields.items() if value and "\n" not in value)
        return "".join(told).encode(errors="replace")


def _state(where: str, lost: int, lost_at: float | None) -> Check:
    """Return the state of a log by its last lost lines; None as `lost_at`: a line was written since."""
    if lost_at is None or time.monotonic() - lost_at > _SAID:
        return Check(True, "ok")
    return Check(False, f"{where} cannot be written: {lost} audit lines are lost")


def open_audit(
    part: str,
    path: str | None,
    *,
    journald: bool = False,
    on_lost: Lost = lambda _: None,
    proof: AuditProof | None = None,
) -> StreamAudit | JournalAudit:
    """Open the audit log of one part, at the destination of [audit]; raises ConfigError."""
    if journald and path:
        raise ConfigError("[audit] file and journald: set one of them")
    if journald:
        return JournalAudit(part, on_lost=on_lost, proof=proof)
    return StreamAudit(part, path, on_lost=on_lost, proof=proof)


def _open_file(path: str) -> int:
    """Open a log for appending. Raises OSError.

    Its mode does not depend on the umask, and its path may not be a link.
    """
    if path in _STANDARD:
        return os.dup(_STANDARD[path])
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, _MODE)
        wanted: int | None = _MODE
    except FileExistsError:
        fd = os.open(path, flags)
        found = os.fstat(fd)
        ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
        wanted = stat.S_IMODE(found.st_mode) & _MODE if ours else None
        if wanted == stat.S_IMODE(found.st_mode):
            wanted = None
    if wanted is not None:
        os.fchmod(fd, wanted)
    return fd


def _last_lines(fd: int, own: str) -> list[str]:
    """Return the newest lines of other writers in this file, as `writer:number:hash`."""
    try:
        size = os.fstat(fd).st_size
        tail = os.pread(fd, _TAIL, max(0, size - _TAIL))
    except OSError:
        return []
    newest: dict[str, str] = {}
    for line in reversed(tail.split(b"\n")):
        link = read_link(line)
        if link is not None and link.writer != own and link.writer not in newest:
            newest[link.writer] = f"{link.writer}:{link.seq}:{link.hash}"
    return list(newest.values())[:_SEEN_MAX]


def _moved(fd: int, path: str) -> bool:
    if path in _STANDARD:
        return False
    try:
        here, there = os.fstat(fd), os.stat(path, follow_symlinks=False)  # noqa: PTH116 - not through a link
    except FileNotFoundError:
        return True
    return (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino)


def _why(ex: OSError) -> str:
    return "it is a symbolic link; name the file itself" if ex.errno == errno.ELOOP else str(ex.strerror)
