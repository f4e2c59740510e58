# SPDX-License-Identifier: Apache-2.0
"""The journal's engine and transactions: one code path for SQLite, PostgreSQL and MariaDB.

A transaction is a function that may run more than once. A deadlock, a serialisation failure or a lost connection
leads to another try. So do two inserts of the same open row. A lasting error becomes JournalUnavailableError. Every
transaction ends: limits of drivers and servers stand in connect.py, a total deadline here.
"""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import PoolProxiedConnection

from bridge.core.errors import ConfigError, JournalRefusedError, JournalUnavailableError
from bridge.core.redact import safe_url
from bridge.journal.begin import begin_of, leave_begin_to_us
from bridge.journal.connect import DEADLINES, LIMITS, DatabaseLimits, Deadline, engine_options, listen
from bridge.journal.errors import explain, is_general, is_useless, is_worth_another_try
from bridge.journal.settings import JournalSettings
from bridge.journal.sqlite_file import listen_for_file
from bridge.journal.statements import DriverConnection, Prepared, PreparedBlock
from bridge.runtime.retry import Backoff

T = TypeVar("T")

_TRIES: Final = 6
_BETWEEN: Final = Backoff(first=0.01, cap=0.5)
"""Delays between two tries of a transaction."""


class Results(Protocol):
    """Receiver of each transaction's result: the database check of a daemon."""

    def succeeded(self, kind: str, *, wrote: bool) -> None:
        """Note a transaction that was committed; `kind` names the code that ran in it."""

    def failed(self, kind: str, why: str, *, general: bool) -> None:
        """Note a transaction that failed; `general` if any other would have failed as well."""


class Database:
    """The database and its transactions. Connects at first use, so a process can start before the database."""

    def __init__(
        self,
        settings: JournalSettings,
        *,
        limits: DatabaseLimits | None = LIMITS,
        results: Results | None = None,
        moved: Callable[[], None] | None = None,
    ) -> None:
        """Create the engine. Without `limits` a transaction has no time limit, as a migration needs.

        `moved` is called after each try of a transaction, in its thread.
        """
        self._settings = settings
        self._limits = limits
        self._moved = moved
        self.results = results
        try:
            url = sa.make_url(settings.connection)
            driver_url, arguments = engine_options(url, limits)
            pool: dict[str, Any] = {"pool_timeout": (limits or LIMITS).checkout}
            if url.get_backend_name() == "sqlite":
                pool = {"pool_use_lifo": True}  # the same connection again, which still has its pages in memory
            self.engine = sa.create_engine(
                driver_url,
                hide_parameters=True,
                connect_args=arguments,
                pool_reset_on_return=None,  # each transaction ends in its block; saves a round trip
                **pool,
            )
        except (ArgumentError, NoSuchModuleError, ImportError) as ex:
            raise ConfigError(
                f"[journal] connection {safe_url(settings.connection)!r} cannot be used: {ex}"
            ) from ex
        self._name = url.set(query={}).render_as_string(hide_password=True)
        self._current = threading.local()
        listen(self.engine, url, limits=limits, current=self._deadline)
        if url.get_backend_name() == "sqlite":
            listen_for_file(self.engine, url)
        leave_begin_to_us(self.engine, url)
        self._begin = begin_of(url, limits)
        sa.event.listen(self.engine, "begin", self._on_begin)

    @property
    def name(self) -> str:
        """Return the URL without its password and options."""
        return self._name

    def write(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work` in a transaction that may write; return its value after the commit.

        Raises JournalUnavailableError, and JournalRefusedError for a value that no row can hold.
        """
        return self._run(work, write=True)

    def write_prepared(self, work: Callable[[DriverConnection], T], *, kind: str | None = None) -> T:
        """Do the same for work with prepared statements alone, without the cost of SQLAlchemy's own connection.

        `kind`: the kind of transaction for `results`, where several functions do the same; by default the function.
        """
        return self._run(work, write=True, once=self._once_prepared, kind=kind)

    def write_alone(
        self, statement: Prepared | PreparedBlock, values: Callable[[], Mapping[str, Any]], *, kind: str
    ) -> list[Any]:
        """Run a statement that is a transaction of its own in one round trip; return its rows after the commit.

        For psycopg and for MariaDB by PyMySQL. `values` gives the values of each try. Raises the errors of `write`.
        """

        def work(connection: DriverConnection) -> list[Any]:
            begin = self._begin.write if self._begin is not None else None
            return statement.alone(connection, begin, values())

        return self._run(work, write=True, once=self._once_alone, kind=kind)

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work` in a transaction that only reads. Raises JournalUnavailableError."""
        return self._run(work, write=False)

    def without_limits(self) -> "Database":
        """Return the same database for work that may take long, such as a migration; the caller disposes of it."""
        return Database(self._settings, limits=None, moved=self._moved)

    def dispose(self) -> None:
        """Close all connections of the pool."""
        self.engine.dispose()

    def _run(
        self,
        work: Callable[[Any], T],
        *,
        write: bool,
        once: Callable[[Callable[[Any], T]], T] | None = None,
        kind: str | None = None,
    ) -> T:
        once = once or self._once
        until = time.monotonic() + (self._limits.total if self._limits is not None else float("inf"))
        kind = kind or str(getattr(work, "__qualname__", type(work).__name__))
        self._current.write = write
        for attempt in range(1, _TRIES + 1):
            began = time.monotonic()
            with self._within(until) as deadline:
                try:
                    result = once(work)
                    break
                except Exception as ex:
                    if attempt < _TRIES and time.monotonic() < until and is_worth_another_try(ex):
                        time.sleep(_BETWEEN.delay(attempt))
                        continue
                    late = deadline is not None and deadline.expired
                    raise self._failure(ex, kind, time.monotonic() - began if late else None) from ex
                finally:
                    self._current.deadline = None
                    if self._moved is not None:
                        self._moved()
        if self.results is not None:
            self.results.succeeded(kind, wrote=write)
        return result

    def _failure(self, ex: Exception, kind: str, expired_after: float | None) -> Exception:
        """Return the error that callers know, and note errors that are the database's fault."""
        if isinstance(ex, DataError | OverflowError | UnicodeError):  # drivers raise the last two as they are
            return JournalRefusedError(f"the journal {self._name} refuses a value: {type(ex).__name__}")
        if not isinstance(ex, SQLAlchemyError):
            return ex
        why = f"the journal {self._name} cannot be used: {explain(ex, expired_after=expired_after)}"
        if self.results is not None:
            self.results.failed(kind, why, general=is_general(ex))
        return JournalUnavailableError(why)

    def _once(self, work: Callable[[sa.Connection], T]) -> T:
        dialect = self.engine.dialect
        with self.engine.connect() as connection, connection.begin():
            try:
                return work(connection)
            except dialect.loaded_dbapi.Error as ex:  # of a statement on the driver's own cursor
                raise self._wrapped(connection, ex) from ex

    def _once_prepared(self, work: Callable[[DriverConnection], T]) -> T:
        return self._once_on_driver(work, alone=False)

    def _once_alone(self, work: Callable[[DriverConnection], T]) -> T:
        return self._once_on_driver(work, alone=True)

    def _once_on_driver(self, work: Callable[[DriverConnection], T], *, alone: bool) -> T:
        """Run `work` on the driver's connection; `alone`: the work begins and commits by itself."""
        dialect = self.engine.dialect
        try:
            connection = self.engine.raw_connection()
        except dialect.loaded_dbapi.Error as ex:
            raise self._wrapped(None, ex) from ex
        try:
            if self._begin is not None and not alone:
                cursor = connection.cursor()
                cursor.execute(self._begin.write)
                cursor.close()
            result = work(DriverConnection(connection, dialect))
            if not alone:
                connection.commit()
        except BaseException as ex:
            error = self._wrapped(connection, ex) if isinstance(ex, dialect.loaded_dbapi.Error) else ex
            _roll_back(connection)
            raise error from ex
        finally:
            connection.close()
        return result

    def _wrapped(self, connection: sa.Connection | PoolProxiedConnection | None, ex: Any) -> Exception:
        """Return SQLAlchemy's error for a driver's error, and invalidate a connection that is useless.

        Without a `connection` none could be made.
        """
        dialect = self.engine.dialect
        raw = connection.connection if isinstance(connection, sa.Connection) else connection
        lost = is_useless(ex) or dialect.is_disconnect(ex, raw, None)
        if lost and connection is not None:
            connection.invalidate(ex)
            self.engine.dispose()
        wrapped = DBAPIError.instance(
            None if connection is None else "", None, ex, dialect.loaded_dbapi.Error, hide_parameters=True,
            connection_invalidated=lost, dialect=dialect,
        )  # fmt: skip
        return wrapped if isinstance(wrapped, Exception) else ex

    def _within(self, until: float) -> AbstractContextManager[Deadline | None]:
        """Limit one try; the connection's events find the deadline by the thread."""
        if self._limits is None:
            return nullcontext()
        deadline = DEADLINES.within(min(self._limits.statement, until - time.monotonic()))
        self._current.deadline = deadline
        return deadline

    def _on_begin(self, connection: sa.Connection) -> None:
        if self._begin is not None:
            text = self._begin.write if getattr(self._current, "write", True) else self._begin.read
            connection.exec_driver_sql(text, execution_options={"no_parameters": True})

    def _deadline(self) -> Deadline | None:
        return getattr(self._current, "deadline", None)


def _roll_back(connection: PoolProxiedConnection) -> None:
    """End a transaction that failed, or give its connection up, because the pool does not reset connections."""
    if connection.is_valid:
        try:
            connection.rollback()
        except Exception as ex:  # noqa: BLE001 - whatever the driver raises, the next caller gets a new connection
            connection.invalidate(ex)


def missing_file(url: str) -> str | None:
    """Return the file of an SQLite journal that does not exist yet; the user who opens it becomes its owner."""
    with suppress(ArgumentError):
        parsed = sa.make_url(url)
        name = parsed.database if parsed.get_backend_name() == "sqlite" else None
        if name and not name.startswith((":memory:", "file:")) and not Path(name).exists():
            return name
    return None
