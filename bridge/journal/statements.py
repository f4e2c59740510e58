# SPDX-License-Identifier: Apache-2.0
"""Statements that are compiled once for each kind of database, and given to its driver as text.

The statements of every request and host message go this way, because SQLAlchemy's path (cache key, parameters,
result) costs more than SQLite's work. The text is SQLAlchemy's own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.pool import PoolProxiedConnection

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
