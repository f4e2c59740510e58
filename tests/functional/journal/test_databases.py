# SPDX-License-Identifier: Apache-2.0
"""What the journal does on SQLite it does on MariaDB and PostgreSQL: the same tests, and a server that goes."""

import threading

import pytest
import sqlalchemy as sa

from bridge.core.errors import JournalRefusedError, JournalUnavailableError
from bridge.core.extend import Arrival, ExtendKey, new_id
from bridge.journal.accept import Journal
from bridge.journal.database import Database
from bridge.journal.tables import hosts, transitions
from tests.lab.databases import MariaDB, Server
from tests.lab.waiting import until
from tests.unit.journal.conftest import Bench
from tests.unit.journal.test_admit import *  # noqa: F403 - the point of this module
from tests.unit.journal.test_findings import *  # noqa: F403 - the same
from tests.unit.journal.test_journal import *  # noqa: F403 - the same
from tests.unit.journal.test_many_hosts import *  # noqa: F403 - the same

pytestmark = pytest.mark.functional

_MANY = 1000
"""More connections than any of the servers takes."""


def test_arrivals_of_one_disk_from_many_writers_at_once_share_one_open_row(bench: Bench, key: ExtendKey) -> None:
    together = threading.Barrier(8)
    failed: list[Exception] = []

    def api() -> None:
        together.wait()
        try:
            for _ in range(5):
                bench.journal.accept([Arrival(key=key), Arrival(key=ExtendKey(new_id(), key.volume_id))])
        except JournalUnavailableError as ex:
            failed.append(ex)

    threads = [threading.Thread(target=api) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    claimed = bench.claim()
    assert len(claimed) == 41
    assert [x.wanted_gen for x in claimed if x.key == key] == [40]


def test_a_database_that_was_killed_is_an_error_in_words_and_then_works_again(
    server: Server, database: Database, key: ExtendKey
) -> None:
    journal = Journal(database)
    journal.accept([Arrival(key=key)])
    server.kill()
    try:
        with pytest.raises(JournalUnavailableError):
            journal.accept([Arrival(key=key)])
    finally:
        server.start()

    def works() -> bool:
        try:
            journal.accept([Arrival(key=key)])
        except JournalUnavailableError:
            return False
        return True

    until(works, "the journal works again")


@pytest.mark.parametrize("text", ["it's; ROLLBACK; --", "back\\slash\\'", "%(id)s %s %%", "ünï"])
def test_a_text_of_one_event_is_stored_as_it_was_given(text: str, bench: Bench, key: ExtendKey) -> None:
    """PostgreSQL gets such an event as one message, in which the driver writes the values."""
    bench.has("h1", key)
    ids = bench.journal.admit([key.server_id], lambda _: [Arrival(key=key, request_id=text)])
    read = sa.select(transitions.c.request_id).where(transitions.c.extend_id == ids[key])
    assert bench.database.read(lambda c: c.scalar(read)) == text


def test_an_event_that_fails_alone_leaves_a_connection_that_works(database: Database, key: ExtendKey) -> None:
    """Its message has the end of the transaction, which the server then does not get to."""
    journal = Journal(database)
    for _ in range(3):
        with pytest.raises(JournalRefusedError):
            journal.accept([Arrival(key=key, request_id="x" * 300)])
    assert set(journal.accept([Arrival(key=key)])) == {key}
    assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["x" * 300, "a\x00b", "\ud800"])
def test_a_value_no_row_can_hold_is_refused_for_good_and_not_waited_for(
    name: str, server: Server, database: Database
) -> None:
    row = {"name": name, "boot_id": new_id(), "seq": 1, "heartbeat_at": 0.0, "turns": 0, "capabilities": "[]"}

    def write(connection: sa.Connection) -> None:
        connection.execute(sa.insert(hosts), row)

    if name == "a\x00b" and isinstance(server, MariaDB):
        database.write(write)  # it stores a NUL as it is
        return
    with pytest.raises(JournalRefusedError) as refused:
        database.write(write)
    assert name not in str(refused.value)


def test_a_server_without_a_free_connection_is_an_error_that_says_what_to_do_and_heals(
    server: Server, database: Database, key: ExtendKey
) -> None:
    journal = Journal(database)
    journal.accept([Arrival(key=key)])
    database.dispose()
    others = sa.create_engine(database.engine.url, poolclass=sa.NullPool)
    taken: list[sa.Connection] = []
    with sa.create_engine(database.engine.url, isolation_level="AUTOCOMMIT").connect() as admin:
        if isinstance(server, MariaDB):
            admin.exec_driver_sql("SET GLOBAL max_connections = 10")
        try:
            with pytest.raises(sa.exc.OperationalError):
                taken.extend(others.connect() for _ in range(_MANY))
            with pytest.raises(JournalUnavailableError, match="raise the server's limit of connections"):
                journal.accept([Arrival(key=key)])
        finally:
            for connection in taken:
                connection.close()
            if isinstance(server, MariaDB):
                admin.exec_driver_sql("SET GLOBAL max_connections = 151")

    def works() -> bool:
        try:
            journal.accept([Arrival(key=key)])
        except JournalUnavailableError:
            return False
        return True

    until(works, "the journal works again")
