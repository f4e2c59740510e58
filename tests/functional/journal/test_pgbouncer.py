# SPDX-License-Identifier: Apache-2.0
"""PgBouncer in transaction mode: a transaction may have any server connection, a client has its own values."""

import threading
from collections.abc import Iterator
from functools import partial

import pytest
import sqlalchemy as sa

from bridge.core.errors import JournalUnavailableError
from bridge.core.extend import Arrival, ExtendKey, new_id
from bridge.journal import migrate
from bridge.journal.accept import Journal
from bridge.journal.database import Database
from bridge.journal.settings import JournalSettings
from tests.conftest import missing
from tests.lab.databases import PostgreSQL, have_postgresql
from tests.lab.pgbouncer import PgBouncer, have_pgbouncer

pytestmark = pytest.mark.functional


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    if not (have_postgresql() and have_pgbouncer()):
        missing("PostgreSQL with PgBouncer")
    with PostgreSQL() as running:
        yield running


@pytest.fixture
def pooled(server: PostgreSQL) -> Iterator[str]:
    url = server.new_url()
    with PgBouncer(server, pool=2) as bouncer:
        bouncer.start(url)
        yield bouncer.url(url)


def test_many_clients_of_one_pooler_get_their_own_values(pooled: str) -> None:
    """psycopg prepares a statement at its sixth run; the name of it is then another client's on this connection."""
    databases = [Database(JournalSettings(connection=pooled)) for _ in range(6)]
    migrate.upgrade(databases[0])
    failed: list[Exception] = []
    opened: dict[ExtendKey, str] = {}

    def client(database: Database, other: sa.TextClause) -> None:
        journal = Journal(database)
        try:
            for number in range(20):
                key = ExtendKey(new_id(), new_id())
                opened.update(journal.accept([Arrival(key=key)]))
                value = f"{number} of {id(database)}"
                assert (
                    database.read(partial(sa.Connection.scalar, statement=other, parameters={"value": value}))
                    == value
                )
        except Exception as ex:  # noqa: BLE001 - it is what the test is about
            failed.append(ex)

    threads = [
        threading.Thread(target=client, args=(database, sa.text(f"SELECT CAST(:value AS TEXT) /* {number} */")))
        for number, database in enumerate(databases)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    rows = databases[0].read(lambda c: c.execute(sa.text("SELECT server_id, volume_id, id FROM extends")).all())
    assert {ExtendKey(server, volume): row for server, volume, row in rows} == opened
    prepared = sa.text("SELECT COUNT(*) FROM pg_prepared_statements")
    assert databases[0].read(lambda c: c.scalar(prepared)) == 0
    for database in databases:
        database.dispose()


def test_a_pooler_that_is_restarted_is_an_error_in_words_and_then_works_again(server: PostgreSQL) -> None:
    url = server.new_url()
    with PgBouncer(server, pool=2) as bouncer:
        bouncer.start(url)
        database = Database(JournalSettings(connection=bouncer.url(url)))
        migrate.upgrade(database)
        journal, key = Journal(database), ExtendKey(new_id(), new_id())
        opened = journal.accept([Arrival(key=key)])
        bouncer.stop()
        with pytest.raises(JournalUnavailableError, match="cannot be used"):
            journal.accept([Arrival(key=key)])
        bouncer.start(url)
        assert journal.accept([Arrival(key=key)]) == opened
        bouncer.stop()
        bouncer.start(url)
        assert journal.accept([Arrival(key=key)]) == opened, "the pool's broken connection is replaced unseen"
        database.dispose()


def test_limits_of_our_transactions_do_not_reach_other_clients(pooled: str) -> None:
    database = Database(JournalSettings(connection=pooled))
    assert database.read(lambda c: c.exec_driver_sql("SHOW statement_timeout").scalar()) == "15s"
    other = sa.create_engine(pooled, connect_args={"prepare_threshold": None})
    for _ in range(5):
        with other.connect() as connection:
            assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "0"
    other.dispose()
    database.dispose()
