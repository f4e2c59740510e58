# SPDX-License-Identifier: Apache-2.0
"""The journal's engine and transactions: one code path for SQLite, PostgreSQL and MariaDB.

A transaction is a function that may run more than once. A deadlock, a serialisation failure or a lost connection
leads to another try. So do two inserts of the same open row. A lasting error becomes JournalUnavailableError. Every
transaction ends: limits of drivers and servers stand in connect.py, a total deadline here.

The statements of every request and host message are compiled once for each kind of database, and given to its
driver as text, because SQLAlchemy's path (cache key, parameters, result) costs more than SQLite's work. The text is
SQLAlchemy's own.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import PoolProxiedConnection

from bridge.core.errors import ConfigError, JournalRefusedError, JournalUnavailableError
from bridge.core.redact import safe_url
from bridge.journal.begin import begin_of, leave_begin_to_us
from bridge.journal.connect import DEADLINES, LIMITS, DatabaseLimits, Deadline, engine_options, listen
from bridge.journal.errors import explain, is_general, is_useless, is_worth_another_try
from bridge.journal.settings import JournalSettings
from bridge.journal.sqlite_file import listen_for_file
from bridge.runtime.retry import Backoff

T = TypeVar("T")

_TRIES: Final = 6
_BETWEEN: Final = Backoff(first=0.01, cap=0.5)
"""Delays between two tries of a transaction."""


_STEP: Final = 4  # rows to which a statement for rows is padded


class Connected(Protocol):
    """The part of a connection that a prepared statement needs: sa.Connection has it, and DriverConnection."""

    @property
    def connection(self) -> PoolProxiedConnection:
        """The driver's connection, in its place of the pool."""

    @property
    def dialect(self) -> Dialect:
        """The kind of database."""


@dataclass(frozen=True, slots=True)
class DriverConnection:
    """A connection of the pool without SQLAlchemy's own around it, for prepared statements alone."""

    connection: PoolProxiedConnection
    dialect: Dialect


@dataclass(frozen=True, slots=True)
class _Text:
    """One statement as a driver takes it: `order` of positional values, `constant` values, `returns` rows."""

    text: str
    order: list[str] | None
    constant: dict[str, Any]
    returns: bool

    def values(self, given: Mapping[str, Any]) -> Any:
        """Return the values in the form of the driver."""
        whole = {**self.constant, **given} if self.constant else given
        return [whole[name] for name in self.order] if self.order is not None else whole


def _text_of(statement: sa.Executable, dialect: Dialect) -> _Text:
    compiled = statement.compile(dialect=dialect)  # type: ignore[attr-defined]
    return _Text(
        str(compiled),
        list(compiled.positiontup) if compiled.positional else None,
        {name: value for name, value in compiled.params.items() if value is not None},
        bool(statement.is_select or compiled.effective_returning),
    )


class _Compiled:
    """A text for each kind of database, made at its first use."""

    def __init__(self) -> None:
        self._texts: dict[str, _Text] = {}

    def rows(self, connection: Connected, values: Mapping[str, Any]) -> list[Any]:
        """Run the statement once on the driver's own cursor, and return its rows: half the cost of `run`.

        Errors are the driver's; Database makes SQLAlchemy's of them.
        """
        text = self._text(connection)
        cursor = connection.connection.cursor()
        try:
            cursor.execute(text.text, text.values(values))
            return list(cursor.fetchall()) if text.returns else []
        finally:
            cursor.close()

    def _text(self, connection: Connected) -> _Text:
        known = self._texts.get(connection.dialect.name)
        if known is None:
            known = self._texts[connection.dialect.name] = self._compile(connection.dialect)
        return known

    def _compile(self, dialect: Dialect) -> _Text:
        raise NotImplementedError


class Prepared(_Compiled):
    """One statement; its values are given by the names of its bind parameters.

    Columns of the journal's tables need no conversion on any of the three databases (a test holds that). So values
    go to the driver and come from it unchanged.
    """

    def __init__(self, statement: sa.Executable) -> None:
        super().__init__()
        self._statement = statement

    def run(self, connection: sa.Connection, values: Mapping[str, Any]) -> sa.CursorResult[Any]:
        """Run the statement once with `values`."""
        text = self._text(connection)
        given = text.values(values)
        return connection.exec_driver_sql(text.text, tuple(given) if text.order is not None else given)

    def changed(self, connection: Connected, values: Mapping[str, Any]) -> int:
        """Run the statement once like `rows`, and return the number of rows that it has changed."""
        text = self._text(connection)
        cursor = connection.connection.cursor()
        try:
            cursor.execute(text.text, text.values(values))
            return int(cursor.rowcount)
        finally:
            cursor.close()

    def alone(self, connection: Connected, begin: str | None, values: Mapping[str, Any]) -> list[Any]:
        """Run the statement as a whole transaction in one message to PostgreSQL, and return its rows.

        psycopg binds the values, because a message of several statements has no parameters of its own. After an
        error the transaction is still open, and the caller rolls it back.
        """
        text = self._text(connection)
        client = connection.dialect.loaded_dbapi.ClientCursor(connection.connection.driver_connection)
        with client as cursor:
            cursor.execute(f"{begin}; {text.text}; COMMIT", text.values(values))
            while cursor.description is None and cursor.nextset():
                pass
            return list(cursor.fetchall())

    def run_many(self, connection: Connected, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run the statement for each row, on the driver's own cursor; without rows, do nothing."""
        if not rows:
            return
        text = self._text(connection)
        cursor = connection.connection.cursor()
        try:
            cursor.executemany(text.text, [text.values(row) for row in rows])
        finally:
            cursor.close()

    def _compile(self, dialect: Dialect) -> _Text:
        return _text_of(self._statement, dialect)


class PreparedBlock(_Compiled):
    """Several statements of MariaDB as one, which the server runs by itself: one round trip for all of them.

    `frame` is the text of the block, with the names of the `statements` in braces, in their order. The block is a
    whole transaction: it begins and commits.
    """

    def __init__(self, frame: str, **statements: sa.Executable) -> None:
        super().__init__()
        self._frame = frame
        self._statements = statements

    def alone(self, connection: Connected, begin: str | None, values: Mapping[str, Any]) -> list[Any]:
        """Run the block, and return the rows that it selects.

        After an error the transaction is still open, and the caller rolls it back.
        """
        del begin
        return self.rows(connection, values)

    def _compile(self, dialect: Dialect) -> _Text:
        texts = {name: _text_of(statement, dialect) for name, statement in self._statements.items()}
        return _Text(
            self._frame.format(**{name: text.text for name, text in texts.items()}),
            [name for text in texts.values() for name in text.order or ()] if dialect.positional else None,
            {name: value for text in texts.values() for name, value in text.constant.items()},
            returns=True,
        )


class PreparedForRows:
    """One statement for a list of rows; `make(n)` returns its form for n rows, whose names end in 0 … n-1.

    Unless `exact`, lists are padded to a multiple of four with the last row, so that there are few texts. Repeating
    a row must then not change the result. `most` rows go in one statement. psycopg reads a text of more than 50
    parameters or 4 kB anew each time. That costs more than a second statement.
    """

    def __init__(self, make: Callable[[int], sa.Executable], *, most: int, exact: bool = False) -> None:
        self._make = make
        self._most = most
        self._exact = exact
        self._by_size: dict[int, Prepared] = {}

    def run(self, connection: Connected, rows: Sequence[Mapping[str, Any]], values: Mapping[str, Any]) -> list[Any]:
        """Run the statement over the rows, with `values` for all of them; return the rows it returns, if any."""
        found: list[Any] = []
        for start in range(0, len(rows), self._most):
            part = rows[start : start + self._most]
            size = len(part) if self._exact else -(-len(part) // _STEP) * _STEP
            given = dict(values)
            for number in range(size):
                for name, value in part[min(number, len(part) - 1)].items():
                    given[f"{name}{number}"] = value
            found.extend(self._of(size).rows(connection, given))
        return found

    def _of(self, size: int) -> Prepared:
        if size not in self._by_size:
            self._by_size[size] = Prepared(self._make(size))
        return self._by_size[size]


def names(prefix: str, size: int, kind: sa.types.TypeEngine[Any]) -> list[sa.BindParameter[Any]]:
    """Return the bind parameters `prefix0` … of a statement for rows."""
    return [sa.bindparam(f"{prefix}{number}", type_=kind) for number in range(size)]


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
