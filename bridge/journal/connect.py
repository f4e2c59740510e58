# SPDX-License-Identifier: Apache-2.0
"""Connections to the journal's database: the limits of each driver, and a deadline for each call.

Limits stand in three places, because none of them alone ends every wait. The server ends statements and waits for
locks. The kernel ends connections to hosts that are gone. The bridge's own deadline shuts the socket of a server
that is still there and silent. An option of the operator's URL replaces the option of the same name here.

Timeouts of sockets count anew with each byte, so a peer that drips is waited for without end. A deadline is total:

    with DEADLINES.within(15, connection.shutdown) as deadline:
        ...                       # blocks in a driver
    deadline.expired              # the call was broken

The blocked call then fails with the driver's own error.
"""

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Dialect, ExceptionContext
from sqlalchemy.pool import ConnectionPoolEntry

from bridge.journal.errors import is_useless

LOG = logging.getLogger(__name__)

_LOOK_EVERY: Final = 0.25


class Deadline:
    """One call that must end in time."""

    __slots__ = ("_at", "_calls", "_cut", "_lock", "_over", "expired")

    def __init__(self, at: float, cut: Callable[[], object] | None, calls: "dict[int, Deadline]") -> None:
        self.expired = False
        """True after the deadline, when `cut` has been called."""
        self._at = at
        self._cut = cut
        self._calls = calls
        self._over = False
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._calls[id(self)] = self
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        del self._calls[id(self)]

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

    def within(self, seconds: float, cut: Callable[[], object] | None = None) -> Deadline:
        """Return a block that is left within `seconds`: else another thread calls `cut`."""
        if self._pid != os.getpid():
            self._start()
        return Deadline(time.monotonic() + seconds, cut, self._calls)

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
        LOG.debug("a database call that is late could not be interrupted: %s", ex)


DEADLINES: Final = Deadlines()
"""The deadlines of this process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseLimits:
    """Seconds that each kind of wait may take."""

    connect: float = 5.0  # TCP, TLS and login, per address
    ping: float = 3.0  # the first statement on a connection that was idle
    idle: float = 5.0  # a connection idle for longer is pinged before its next use
    lock: float = 10.0  # one lock of another transaction
    statement: float = 15.0  # one statement, and one try of a transaction
    checkout: float = 10.0  # a free connection of the pool
    total: float = 28.0  # a transaction with all its tries
    abandoned: float = 30.0  # a transaction whose client is silent, until the server ends it


LIMITS: Final = DatabaseLimits()

_KEEPALIVE_IDLE: Final = 5
_KEEPALIVE_EVERY: Final = 5
_KEEPALIVE_COUNT: Final = 3


def engine_options(url: sa.URL, limits: DatabaseLimits | None) -> tuple[sa.URL, dict[str, Any]]:
    """Return the URL without the options that the driver cannot read as text, and the driver's arguments.

    Without `limits` statements have no time limit, as migrations need.
    """
    ours = _defaults(url, limits)
    given = {name.lower() for name in url.query}
    arguments = {name: value for name, value in ours.items() if name.lower() not in given}
    if url.drivername == "postgresql+psycopg" and "prepare_threshold" in given:
        words = str(url.query["prepare_threshold"])
        arguments["prepare_threshold"] = int(words) if words.isdigit() else None
        url = url.difference_update_query(["prepare_threshold"])
    return url, arguments


def _defaults(url: sa.URL, limits: DatabaseLimits | None) -> dict[str, Any]:
    waits = limits or LIMITS
    backend = url.get_backend_name()
    if backend == "sqlite":
        return {"timeout": waits.lock, "check_same_thread": False}
    if backend == "postgresql":
        arguments: dict[str, Any] = {
            "connect_timeout": round(waits.connect),
            "tcp_user_timeout": round(waits.statement * 1000),
            "keepalives": 1,
            "keepalives_idle": _KEEPALIVE_IDLE,
            "keepalives_interval": _KEEPALIVE_EVERY,
            "keepalives_count": _KEEPALIVE_COUNT,
            "application_name": "extend-bridge",
        }
        if url.get_driver_name() == "psycopg":
            # Behind a pooler such as PgBouncer, a prepared statement of one server connection belongs to another
            # client.
            arguments["prepare_threshold"] = None
        return arguments
    if backend in {"mysql", "mariadb"}:
        arguments = {"connect_timeout": round(waits.connect)}
        if limits is not None:
            arguments["read_timeout"] = arguments["write_timeout"] = round(limits.statement) + 2
        if url.get_driver_name() == "pymysql":
            arguments["init_command"] = _session_of_mariadb(limits)
        return arguments
    return {}


def _session_of_mariadb(limits: DatabaseLimits | None) -> str:
    """Set the limits of a session in one round trip; the text in `/*M! */` is for MariaDB alone.

    The mode ORACLE is dropped, because it has another grammar for a block (accept.py).
    """
    waits = limits or LIMITS
    parts = [f"innodb_lock_wait_timeout={round(waits.lock)}"]
    if limits is None:
        return f"SET SESSION {parts[0]}"
    parts += [f"lock_wait_timeout={round(limits.lock)}"]
    more = f"max_statement_time={round(limits.statement)}, idle_transaction_timeout={round(limits.abandoned)}"
    more += ", sql_mode=REPLACE(@@sql_mode, 'ORACLE', '')"
    return f"SET SESSION {', '.join(parts)} /*M!100300 , {more} */"


def listen(
    engine: sa.Engine, url: sa.URL, *, limits: DatabaseLimits | None, current: Callable[[], Deadline | None]
) -> None:
    """Apply the rules of this module to an engine. `current` gives the deadline of the calling thread."""
    backend = url.get_backend_name()
    event.listen(engine, "handle_error", _on_error)
    if backend == "sqlite":
        event.listen(engine, "checkout", partial(_hand_on_cut, current=current))
        return
    if url.get_driver_name() == "pymysql":
        event.listen(engine, "do_connect", partial(_connect_pymysql, current=current))
    elif url.get_driver_name() == "psycopg":
        event.listen(engine, "connect", _keep_socket_of_psycopg)
        event.listen(engine, "close", _close_kept_socket)
    event.listen(engine, "checkin", _note_idle)
    ping = partial(_ping_idle, dialect=engine.dialect, limits=limits or LIMITS, current=current)
    event.listen(engine, "checkout", ping)


def cut_of(connection: Any, record_info: Mapping[Any, Any]) -> Callable[[], object]:
    """Return the function that breaks a call blocked on this connection of the driver."""
    if _SOCKET in record_info:
        kept: socket.socket = record_info[_SOCKET]
        return lambda: kept.shutdown(socket.SHUT_RDWR)
    if hasattr(connection, "interrupt"):  # SQLite: ends a statement, not a read of a disk that hangs
        interrupt: Callable[[], object] = connection.interrupt
        return interrupt
    return lambda: _shut_pymysql(connection)


_SOCKET: Final = "extend_bridge_socket"
_IDLE_SINCE: Final = "extend_bridge_idle_since"


def _on_error(context: ExceptionContext) -> None:
    if is_useless(context.original_exception):
        context.is_disconnect = True


def _connect_pymysql(
    dialect: Dialect,
    _record: ConnectionPoolEntry,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
    *,
    current: Callable[[], Deadline | None],
) -> Any:
    """Connect under the deadline of the calling thread, because PyMySQL's timeouts count anew with each byte."""
    connection = dialect.loaded_dbapi.Connection(*arguments, **{**options, "defer_connect": True})
    if (deadline := current()) is not None:
        deadline.cut_by(lambda: _shut_pymysql(connection))
    connection.connect()
    with contextlib.suppress(OSError, AttributeError):  # a Unix socket, a system without the option
        connection._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(LIMITS.statement * 1000))  # noqa: SLF001
        connection._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE)  # noqa: SLF001
        connection._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_EVERY)  # noqa: SLF001
        connection._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_COUNT)  # noqa: SLF001
    return connection


def _shut_pymysql(connection: Any) -> None:
    sock = connection._sock  # noqa: SLF001
    if sock is not None:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # for TLS, the plain socket: its reader sees the end


def _keep_socket_of_psycopg(connection: Any, record: ConnectionPoolEntry) -> None:
    """Keep a second descriptor of the connection: libpq's own may be closed and given out again at any time."""
    record.info[_SOCKET] = socket.socket(fileno=os.dup(connection.pgconn.socket))


def _close_kept_socket(_connection: Any, record: ConnectionPoolEntry) -> None:
    kept = record.info.pop(_SOCKET, None)
    if kept is not None:
        kept.close()


def _note_idle(_connection: Any, record: ConnectionPoolEntry) -> None:
    record.info[_IDLE_SINCE] = time.monotonic()


def _ping_idle(
    connection: Any,
    record: ConnectionPoolEntry,
    fairy: object,
    *,
    dialect: Dialect,
    limits: DatabaseLimits,
    current: Callable[[], Deadline | None],
) -> None:
    """Prove a connection that was idle, because firewalls and fail-overs drop idle connections.

    Raises InvalidatePoolError, so the pool's other idle connections are not used either.
    """
    since = record.info.get(_IDLE_SINCE)
    if since is not None and time.monotonic() - since > limits.idle:
        with DEADLINES.within(limits.ping, cut_of(connection, record.info)):
            try:
                dialect.do_ping(connection)
            except dialect.loaded_dbapi.Error as ex:
                raise sa.exc.InvalidatePoolError("an idle connection does not answer") from ex
    _hand_on_cut(connection, record, fairy, current=current)


def _hand_on_cut(
    connection: Any, record: ConnectionPoolEntry, _fairy: object, *, current: Callable[[], Deadline | None]
) -> None:
    """Give the caller's deadline the function that breaks the connection just checked out."""
    if (deadline := current()) is not None:
        deadline.cut_by(cut_of(connection, record.info))
