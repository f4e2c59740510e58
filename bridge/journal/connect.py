# SPDX-License-Identifier: Apache-2.0
"""Connections to the journal's database: limits of each driver, and the errors that make a connection useless.

Limits stand in three places, because none of them alone ends every wait. The server ends statements and waits for
locks. The kernel ends connections to hosts that are gone. The bridge's own deadline (Database) shuts the socket of
a server that is still there and silent. An option of the operator's URL replaces the option of the same name here.
"""

import contextlib
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Dialect, ExceptionContext
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.pool import ConnectionPoolEntry

from bridge.runtime.deadline import DEADLINES, Deadline


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

READ_ONLY: Final[frozenset[str | int]] = frozenset(
    {
        "25006",  # PostgreSQL: a standby, or default_transaction_read_only
        1290,  # MariaDB, MySQL: read_only, super_read_only
        1792,  # the transaction is READ ONLY
        1836,  # InnoDB is in read-only mode
        "SQLITE_READONLY",
        "SQLITE_READONLY_DBMOVED",
        "SQLITE_READONLY_DIRECTORY",
    }
)
NOT_READY: Final[frozenset[str | int]] = frozenset(
    {
        "57P01", "57P02", "57P03",  # PostgreSQL: shuts down, crashed, starts up
        "57P05", "25P03",  # PostgreSQL ended an idle session or transaction
        1047,  # Galera: the node is not in the primary component ("WSREP has not yet prepared node")
        1053,  # shuts down
        1152, 1153, 1154, 1155, 1156, 1157, 1158, 1159, 1160, 1161, 1184,  # class 08S01: the connection broke
        1317,  # interrupted, as by a shutdown
        1927,  # killed
        1180, 1815,  # Galera: a commit, or the inside, of a node that leaves
        9001, 9002,  # ProxySQL: no backend
    }
)  # fmt: skip
CONTENDED: Final[frozenset[str | int]] = frozenset(
    {
        "40001", "40P01", "55P03",  # serialisation, deadlock, lock_timeout
        1020, 1205, 1213,  # changed since it was read, lock_wait_timeout, deadlock (Galera: certification failed)
        3572,  # MySQL: NOWAIT
    }
)  # fmt: skip
TOO_SLOW: Final[frozenset[str | int]] = frozenset({"57014", 1969, 3024})
"""Codes of a server that ended a statement because it took too long."""
FULL: Final[frozenset[str | int]] = frozenset({"53100", 1021, 1114, "SQLITE_FULL"})
CROWDED: Final[frozenset[str | int]] = frozenset({"53300", 1040, 1203})


_BROKEN: Final = re.compile(r"08(?!004)\w{3}$")
"""SQLSTATEs of a broken connection; 08004 is MariaDB's for too many connections."""


def error_code(ex: BaseException | None) -> str | int | None:
    """Return MariaDB's number, PostgreSQL's SQLSTATE or SQLite's name of an error; None if there is no code."""
    if isinstance(ex, DBAPIError):
        ex = ex.orig
    first = ex.args[0] if ex is not None and ex.args else None
    if isinstance(first, int):
        return first  # PyMySQL; its SQLSTATE is HY000 for most errors
    code = getattr(ex, "sqlstate", None) or getattr(ex, "sqlite_errorname", None) or first
    return code if isinstance(code, str) else None


def is_useless(ex: BaseException | None) -> bool:
    """Return True if this error means that the server cannot serve writers, so the connection must be replaced."""
    code, state = error_code(ex), getattr(ex.orig if isinstance(ex, DBAPIError) else ex, "sqlstate", None)
    return code in READ_ONLY or code in NOT_READY or (isinstance(state, str) and _BROKEN.match(state) is not None)


def is_worth_another_try(ex: BaseException) -> bool:
    """Return True if a second try may succeed at once: after a conflict, or on a new connection."""
    if isinstance(ex, IntegrityError):
        return True
    return isinstance(ex, DBAPIError) and (ex.connection_invalidated or error_code(ex) in CONTENDED)


def is_general(ex: BaseException) -> bool:
    """Return True if any other transaction would have failed as well: no connection, or a useless one."""
    if not isinstance(ex, DBAPIError):
        return True  # of the pool
    return ex.connection_invalidated or ex.statement is None or is_useless(ex)


def explain(ex: BaseException | None, *, expired_after: float | None) -> str:
    """Return what happened and what to look at, in one line without values.

    `expired_after`: the seconds after which a deadline has broken the connection, None without such a deadline.
    """
    code = error_code(ex)
    text = (str(ex.orig if isinstance(ex, DBAPIError) else ex).splitlines() or [""])[0][:200]
    if expired_after is not None:
        return (
            f"no answer within {expired_after:.0f} s, the connection was dropped: "
            "look at the server, its locks and the network between"
        )
    for codes, advice in _ADVICE:
        if code in codes:
            return f"{text}: {advice}"
    return text


_ADVICE: Final[tuple[tuple[frozenset[str | int], str], ...]] = (
    (
        READ_ONLY,
        (
            "no writes are taken here; after a fail-over [journal] connection must lead to the new primary "
            "(target_session_attrs=read-write for PostgreSQL, or a proxy that checks for it)"
        ),
    ),
    (NOT_READY, "this server does not serve now; a new connection is tried"),
    (
        CONTENDED,
        "other transactions hold these rows or tables: look for a backup, a migration or a dead client",
    ),
    (TOO_SLOW, "the server ended the statement: look at its load and its locks"),
    (
        frozenset({"SQLITE_BUSY"}),
        "another process holds the write lock: look for a shell or a backup with an open transaction",
    ),
    (FULL, "make room where the database keeps its files"),
    (CROWDED, "raise the server's limit of connections, or put a pooler before it"),
)


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
    """Set the limits of a session in one round trip; the text in `/*M! */` is for MariaDB alone."""
    waits = limits or LIMITS
    parts = [f"innodb_lock_wait_timeout={round(waits.lock)}"]
    if limits is None:
        return f"SET SESSION {parts[0]}"
    parts += [f"lock_wait_timeout={round(limits.lock)}"]
    more = f"max_statement_time={round(limits.statement)}, idle_transaction_timeout={round(limits.abandoned)}"
    return f"SET SESSION {', '.join(parts)} /*M!100300 , {more} */"


def begin_of_postgresql(url: sa.URL, limits: DatabaseLimits | None) -> str:
    """Return the opening of a transaction: its limits travel with BEGIN in one round trip, and end with it.

    A SET for the session would reach the next client of the same server connection through a pooler.
    """
    waits = limits or LIMITS
    wanted = {
        "statement_timeout": waits.statement if limits is not None else 0,
        "lock_timeout": waits.lock,
        "idle_in_transaction_session_timeout": waits.abandoned if limits is not None else 0,
    }
    options = str(url.query.get("options", ""))
    return "; ".join(
        [
            "BEGIN",
            *(f"SET LOCAL {name} = {round(value * 1000)}" for name, value in wanted.items() if name not in options),
        ]
    )


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
