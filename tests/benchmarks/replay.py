# SPDX-License-Identifier: Apache-2.0
"""The bare library beside a transaction: its statements caught, and given to the driver alone once more."""

from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

Statement = tuple[str, Any, bool]


def caught(engine: sa.Engine, work: Callable[[], object]) -> list[Statement]:
    """The statements of one call of `work`, with their parameters."""
    statements: list[Statement] = []

    def catch(_connection: Any, _cursor: Any, text: str, parameters: Any, _context: Any, many: bool) -> None:
        statements.append((text, parameters, many))

    sa.event.listen(engine, "before_cursor_execute", catch)
    try:
        work()
    finally:
        sa.event.remove(engine, "before_cursor_execute", catch)
    return [s for s in statements if not s[0].startswith("BEGIN")]


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
