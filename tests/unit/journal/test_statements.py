# SPDX-License-Identifier: Apache-2.0
"""Statements that go to the driver as text: the same rows as by SQLAlchemy's own way, whatever their number."""

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite

from bridge.core.extend import new_id
from bridge.journal.database import Database, Prepared, PreparedForRows, names
from bridge.journal.tables import hosts, metadata
from tests.unit.journal.conftest import Bench


@pytest.mark.parametrize("dialect", [sqlite.dialect, mysql.dialect, postgresql.psycopg.dialect])
def test_no_column_needs_a_conversion_that_goes_by_the_board(dialect: type[sa.Dialect]) -> None:
    """SQLAlchemy may say float() to what is a float already, nothing else."""
    kinds = [column.type.dialect_impl(dialect()) for table in metadata.tables.values() for column in table.columns]
    others = [kind for kind in kinds if not isinstance(kind, sa.Float)]
    assert others
    assert [kind for kind in others if kind.bind_processor(dialect()) is not None] == []
    assert [kind for kind in others if kind.result_processor(dialect(), None) is not None] == []


def _named(size: int) -> sa.Select[tuple[str]]:
    return sa.select(hosts.c.name).where(hosts.c.name.in_(names("name", size, hosts.c.name.type)))


def _insert(size: int) -> sa.Insert:
    given = {"boot_id": sa.bindparam("boot"), "turns": 0, "seq": 1, "heartbeat_at": 1.5, "capabilities": "[]"}
    return sa.insert(hosts).values([{"name": name, **given} for name in names("name", size, hosts.c.name.type)])


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 12, 13, 25])
def test_every_row_of_a_list_is_in_one_statement_or_another_once(bench: Bench, count: int) -> None:
    rows = [{"name": f"h{number:02}"} for number in range(count)]
    insert = PreparedForRows(_insert, most=7, exact=True)
    select = PreparedForRows(_named, most=12)

    def work(connection: sa.Connection) -> list[str]:
        insert.run(connection, rows, {"boot": new_id()})
        return sorted(name for (name,) in select.run(connection, [*rows, {"name": "nobody"}], {}))

    assert bench.database.write(work) == [row["name"] for row in rows]


def test_a_constant_of_the_statement_goes_with_each_row(bench: Bench) -> None:
    one = Prepared(
        sa.insert(hosts).values(
            name=sa.bindparam("name"), boot_id="b", seq=7, turns=0, heartbeat_at=1.5, capabilities="[]"
        )
    )
    bench.database.write(lambda c: one.run_many(c, [{"name": "a"}, {"name": "b"}]))
    assert _all(bench.database) == [("a", 7, 1.5), ("b", 7, 1.5)]


def _all(database: Database) -> list[tuple[str, int, float]]:
    query = sa.select(hosts.c.name, hosts.c.seq, hosts.c.heartbeat_at).order_by(hosts.c.name)
    return database.read(lambda c: [(name, seq, at) for name, seq, at in c.execute(query)])
