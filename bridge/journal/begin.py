# SPDX-License-Identifier: Apache-2.0
"""The beginning of a transaction: by our own text where the driver would begin it late, or without its limits.

SQLite's driver sends BEGIN too late, and psycopg sends it without the limits of the transaction. So both are set to
begin nothing. With PyMySQL the server begins a transaction at its first statement.
"""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from bridge.journal.connect import LIMITS, DatabaseLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """The texts that begin a transaction; `write` begins one that may write."""

    write: str
    read: str


def begin_of(url: sa.URL, limits: DatabaseLimits | None) -> Begin | None:
    """Return the texts for this driver; None where a transaction begins by itself."""
    if url.get_backend_name() == "sqlite":
        # IMMEDIATE takes the write lock at once. A transaction that read first cannot take the lock later
        # (SQLITE_BUSY).
        return Begin(write="BEGIN IMMEDIATE", read="BEGIN")
    if url.get_driver_name() == "psycopg":
        text = begin_of_postgresql(url, limits)
        return Begin(write=text, read=text)
    return None


def leave_begin_to_us(engine: sa.Engine, url: sa.URL) -> None:
    """Set up the driver of an engine to begin no transaction, where the texts above do so."""
    if url.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _on_sqlite_connect)
    elif url.get_driver_name() == "psycopg":
        event.listen(engine, "connect", _on_psycopg_connect)


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


def _on_sqlite_connect(connection: Any, _record: object) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _on_psycopg_connect(connection: Any, _record: object) -> None:
    connection.autocommit = True
