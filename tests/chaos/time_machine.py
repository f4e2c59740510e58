# SPDX-License-Identifier: Apache-2.0
"""A journal as it was, and a journal as it will be: by its rows, so on any database."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from bridge.journal.database import Database
from bridge.journal.tables import metadata

Rows = Mapping[str, Sequence[Mapping[str, Any]]]
"""Every row of every table, by the table's name."""


def snapshot(database: Database) -> Rows:
    """As a backup has it."""
    return database.read(
        lambda c: {
            table.name: [dict(row) for row in c.execute(sa.select(table)).mappings()]
            for table in metadata.sorted_tables
        }
    )


def put_back(database: Database, rows: Rows) -> None:
    """As a backup is restored: what came since is gone."""

    def work(connection: sa.Connection) -> None:
        for table in metadata.sorted_tables:
            connection.execute(sa.delete(table))
            if rows[table.name]:
                connection.execute(sa.insert(table), list(rows[table.name]))

    database.write(work)


def grow_older(database: Database, seconds: float) -> None:
    """Everything was written so much earlier: to whoever reads it, so much time has passed since."""

    def work(connection: sa.Connection) -> None:
        for table in metadata.sorted_tables:
            times = [column for column in table.columns if isinstance(column.type, sa.Double)]
            if times:
                connection.execute(sa.update(table).values({column: column - seconds for column in times}))

    database.write(work)
