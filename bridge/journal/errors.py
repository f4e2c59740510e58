# SPDX-License-Identifier: Apache-2.0
"""Errors of the databases: their meaning by code, and an operator's words for them."""

import re
from typing import Final

from sqlalchemy.exc import DBAPIError, IntegrityError

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
FULL: Final[frozenset[str | int]] = frozenset(
    {"53100", 1021, 1114, "SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"}  # the last: no room for the file of WAL's index
)
FAILING_DISK: Final[frozenset[str | int]] = frozenset(
    f"SQLITE_IOERR{part}"
    for part in ("", "_READ", "_SHORT_READ", "_WRITE", "_FSYNC", "_DIR_FSYNC", "_TRUNCATE", "_SHMMAP", "_SHMOPEN")
)
CROWDED: Final[frozenset[str | int]] = frozenset({"53300", 1040, 1203})
_CROWDED_WORDS: Final = re.compile(
    "too many clients|too many connections|connection slots are reserved|no more connections allowed"
)
"""PostgreSQL's and PgBouncer's words, because libpq gives no code for a connection that could not be made."""


_BROKEN: Final = re.compile(r"08(?!004)\w{3}$")
"""SQLSTATEs of a broken connection; 08004 is MariaDB's for too many connections."""


def error_code(ex: BaseException | None) -> str | int | None:
    """Return MariaDB's number, PostgreSQL's SQLSTATE or SQLite's name of an error; None if there is no code."""
    if isinstance(ex, DBAPIError):
        ex = ex.orig
    first = ex.args[0] if ex is not None and ex.args else None
    if isinstance(first, int):
        return first  # PyMySQL; its SQLSTATE is HY000 for most errors
    code = getattr(ex, "sqlstate", None) or getattr(ex, "sqlite_errorname", None)
    if code is None and isinstance(first, str):
        code = "53300" if _CROWDED_WORDS.search(first) else first
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
            "this server is read-only; after a fail-over [journal] connection must lead to the new primary "
            "(target_session_attrs=read-write for PostgreSQL, or a proxy that checks for it)"
        ),
    ),
    (NOT_READY, "this server does not accept statements now; a new connection is tried"),
    (
        CONTENDED,
        "other transactions hold these rows or tables: look for a backup, a migration or a dead client",
    ),
    (TOO_SLOW, "the server ended the statement: look at its load and its locks"),
    (
        frozenset({"SQLITE_BUSY"}),
        "another process holds the write lock: look for a shell or a backup with an open transaction",
    ),
    (FULL, "free space where the database keeps its files"),
    (FAILING_DISK, "its disk or share fails, or is full: look at the kernel's log and at the free space"),
    (CROWDED, "raise the server's limit of connections, or use a connection pooler"),
)
