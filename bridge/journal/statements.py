# SPDX-License-Identifier: Apache-2.0
"""Statements compiled once for each kind of database and then given to its driver as text.

Statements of every host message are compiled, because SQLAlchemy's path (cache key, parameters, result) costs more
than SQLite's work. The text is SQLAlchemy's own, so there is still one code path.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

_STEP: Final = 4


class Prepared:
    """One statement; its values are given by the names of its bind parameters.

    Columns of the journal's tables need no conversion on any of the three databases (a test holds that). So values
    go to the driver and come from it unchanged.
    """

    def __init__(self, statement: sa.Executable) -> None:
        self._statement = statement
        self._texts: dict[str, tuple[str, list[str] | None, dict[str, Any]]] = {}

    def run(self, connection: sa.Connection, values: Mapping[str, Any]) -> sa.CursorResult[Any]:
        """Run the statement once with `values`."""
        text, order, constant = self._text(connection)
        given = {**constant, **values}
        return connection.exec_driver_sql(
            text, tuple(map(given.__getitem__, order)) if order is not None else given
        )

    def rows(self, connection: sa.Connection, values: Mapping[str, Any]) -> list[Any]:
        """Run the statement once on the driver's own cursor, and return its rows: half the cost of `run`.

        Errors are the driver's; Database makes SQLAlchemy's of them.
        """
        text, order, constant = self._text(connection)
        given = {**constant, **values}
        cursor = connection.connection.cursor()
        try:
            cursor.execute(text, tuple(map(given.__getitem__, order)) if order is not None else given)
            return list(cursor.fetchall()) if cursor.description is not None else []
        finally:
            cursor.close()

    def run_many(self, connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run the statement for each row; without rows, do nothing."""
        if rows:
            text, order, constant = self._text(connection)
            given = [{**constant, **row} for row in rows] if constant else rows
            connection.exec_driver_sql(
                text, [tuple(map(row.__getitem__, order)) for row in given] if order is not None else list(given)
            )

    def _text(self, connection: sa.Connection) -> tuple[str, list[str] | None, dict[str, Any]]:
        known = self._texts.get(connection.dialect.name)
        if known is None:
            compiled = self._statement.compile(dialect=connection.dialect)  # type: ignore[attr-defined]
            constant = {name: value for name, value in compiled.params.items() if value is not None}
            known = (str(compiled), list(compiled.positiontup) if compiled.positional else None, constant)
            self._texts[connection.dialect.name] = known
        return known


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

    def run(
        self, connection: sa.Connection, rows: Sequence[Mapping[str, Any]], values: Mapping[str, Any]
    ) -> list[Any]:
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
