# SPDX-License-Identifier: Apache-2.0
"""The bare library beside a transaction: its statements caught, and given to the driver alone once more."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import sqlalchemy as sa
from sqlalchemy.pool import PoolProxiedConnection

Statement = tuple[str, Any, bool]


def caught(engine: sa.Engine, work: Callable[[], object]) -> list[Statement]:
    """The statements of one call of `work`, with their parameters."""
    with _caught_at_the_driver(engine) as statements:
        work()
    return [s for s in statements if not s[0].startswith("BEGIN")]


class _Catching:
    """A cursor of the driver that notes each statement it executes."""

    def __init__(self, cursor: Any, statements: list[Statement]) -> None:
        self._cursor = cursor
        self._statements = statements

    def execute(self, text: str, parameters: Any = (), **more: Any) -> Any:
        self._statements.append((text, parameters, False))
        return self._cursor.execute(text, parameters, **more)

    def executemany(self, text: str, parameters: Any, **more: Any) -> Any:
        self._statements.append((text, parameters, True))
        return self._cursor.executemany(text, parameters, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


@contextmanager
def _caught_at_the_driver(engine: sa.Engine) -> Iterator[list[Statement]]:
    """Note the statements of SQLAlchemy and those that the journal gives to the driver's own cursor."""
    statements: list[Statement] = []
    with engine.connect() as connection:
        pooled: type[PoolProxiedConnection] = type(connection.connection)
    plain = pooled.cursor

    def catching(self: PoolProxiedConnection, *arguments: Any, **more: Any) -> Any:
        return _Catching(plain(self, *arguments, **more), statements)

    with patch.object(pooled, "cursor", catching):
        yield statements


def replay(engine: sa.Engine, transactions: Sequence[Sequence[Statement]]) -> None:
    """Run them by the driver alone, a commit after each transaction; results are fetched."""
    raw = engine.raw_connection()
    try:
        connection = raw.driver_connection
        assert connection is not None
        cursor = connection.cursor()
        for statements in transactions:
            if engine.dialect.name == "sqlite":
                cursor.execute("BEGIN IMMEDIATE")
            for text, parameters, many in statements:
                if many:
                    cursor.executemany(text, parameters)
                else:
                    cursor.execute(text, parameters)
                    if cursor.description is not None:
                        cursor.fetchall()
            connection.commit()
        cursor.close()
    finally:
        raw.close()
