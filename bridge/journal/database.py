# SPDX-License-Identifier: Apache-2.0
"""Engine and transactions: one code path for SQLite, PostgreSQL and MariaDB.

A transaction is a function that may run more than once: deadlocks, serialisation failures and two writers inserting
the same open row are tried again a few times; what stays wrong becomes JournalUnavailableError.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import sqlalchemy as sa
import tenacity
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, NoSuchModuleError, SQLAlchemyError

from bridge.core.errors import ConfigError, JournalRefusedError, JournalUnavailableError
from bridge.core.redact import safe_url
from bridge.journal.settings import JournalSettings

T = TypeVar("T")

_TRIES: Final = 6
_BUSY_SECONDS: Final = 10
_WRITE: Final = "journal_write"


class Database:
    """Runs transactions. Connects at first use, so that a process starts while the database is away."""

    def __init__(self, settings: JournalSettings) -> None:
        try:
            url = sa.make_url(settings.connection)
            self.engine = sa.create_engine(
                url,
                hide_parameters=True,
                pool_pre_ping=url.get_backend_name() != "sqlite",
                connect_args=_connect_args(url),
            )
        except (ArgumentError, NoSuchModuleError, ImportError) as ex:
            raise ConfigError(
                f"[journal] connection {safe_url(settings.connection)!r} cannot be used: {ex}"
            ) from ex
        self._name = url.render_as_string(hide_password=True)
        if url.get_backend_name() == "sqlite":
            event.listen(self.engine, "connect", _on_sqlite_connect)
            event.listen(self.engine, "begin", _on_sqlite_begin)
        self._attempts = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(_TRIES),
            wait=tenacity.wait_random_exponential(multiplier=0.01, max=0.5),
            retry=tenacity.retry_if_exception(_worth_another_try),
            reraise=True,
        )

    def write(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work` in a transaction that may write; returns after the commit.

        Raises JournalUnavailableError, and JournalRefusedError for a value no row can hold.
        """
        return self._run(work, write=True)

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work` in a transaction that only reads. Raises JournalUnavailableError."""
        return self._run(work, write=False)

    def dispose(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def _run(self, work: Callable[[sa.Connection], T], *, write: bool) -> T:
        try:
            result: T = self._attempts(self._once, work, write)
            return result
        except (DataError, OverflowError, UnicodeError) as ex:  # drivers raise the last two as they are
            raise JournalRefusedError(f"the journal {self._name} refuses a value: {type(ex).__name__}") from ex
        except SQLAlchemyError as ex:
            cause = ex.orig if isinstance(ex, DBAPIError) else ex
            raise JournalUnavailableError(f"the journal {self._name} cannot be used: {_first_line(cause)}") from ex

    def _once(self, work: Callable[[sa.Connection], T], write: bool) -> T:
        with self.engine.connect().execution_options(**{_WRITE: write}) as connection, connection.begin():
            return work(connection)


def missing_file(url: str) -> str | None:
    """The file of an SQLite journal that is not there yet: whoever opens it makes it, with himself as its owner."""
    with suppress(ArgumentError):
        parsed = sa.make_url(url)
        name = parsed.database if parsed.get_backend_name() == "sqlite" else None
        if name and not name.startswith((":memory:", "file:")) and not Path(name).exists():
            return name
    return None


def _connect_args(url: sa.URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {"timeout": _BUSY_SECONDS, "check_same_thread": False}
    return {"connect_timeout": 5}


def _on_sqlite_connect(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves; the driver would say it too late
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _on_sqlite_begin(connection: sa.Connection) -> None:
    # IMMEDIATE takes the write lock at once: a transaction that read first could not take it later (SQLITE_BUSY)
    write = connection.get_execution_options().get(_WRITE, True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _worth_another_try(ex: BaseException) -> bool:
    """Two writers met, or a pooled connection had gone stale; not: no such table, no such host."""
    if isinstance(ex, IntegrityError):
        return True
    if not isinstance(ex, DBAPIError):
        return False
    code = getattr(ex.orig, "sqlstate", None) or (ex.orig.args[0] if ex.orig is not None and ex.orig.args else None)
    return ex.connection_invalidated or code in {"40001", "40P01", 1205, 1213}


def _first_line(ex: BaseException | None) -> str:
    return (str(ex).splitlines() or [""])[0][:200]
