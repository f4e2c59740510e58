# SPDX-License-Identifier: Apache-2.0
"""Galera: writers on several nodes, a node that leaves the primary component, a node that is killed.

Two nodes; three with EXTEND_BRIDGE_LONG=1, as `tools/test --long failover` sets it.
"""

import logging
import os
import threading
from collections.abc import Iterator
from functools import partial

import pytest
import sqlalchemy as sa

from bridge.core.errors import JournalUnavailableError
from bridge.core.extend import Arrival, ExtendKey, new_id
from bridge.journal import migrate
from bridge.journal.accept import Journal
from bridge.journal.claims import Claims
from bridge.journal.database import Database
from bridge.journal.settings import JournalSettings
from bridge.journal.watch import DatabaseCheck, DatabaseProbe
from bridge.runtime.health import Health
from tests.conftest import missing
from tests.lab.galera import Galera, have_galera
from tests.lab.proxy import Proxy
from tests.lab.waiting import until

pytestmark = pytest.mark.functional

LONG = os.environ.get("EXTEND_BRIDGE_LONG") == "1"
HEALED = 60.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Galera]:
    if not have_galera():
        missing("Galera")
    with Galera(3 if LONG else 2) as running:
        yield running


@pytest.fixture
def name(cluster: Galera) -> str:
    made = cluster.new_database()
    database = Database(JournalSettings(connection=cluster.nodes[0].url_of(made)))
    migrate.upgrade(database)
    database.dispose()
    for node in cluster.nodes:
        database = Database(JournalSettings(connection=node.url_of(made)))
        until(partial(_has_tables, database), "every node has applied the migrations")
        database.dispose()
    return made


def _has_tables(database: Database) -> bool:
    try:
        return migrate.problem(database) is None
    except JournalUnavailableError:
        return False


def test_writers_of_the_same_rows_on_every_node_lose_nothing(cluster: Galera, name: str) -> None:
    """Certification fails at the commit (1213) where two nodes wrote the same row: tried again."""
    databases = [Database(JournalSettings(connection=node.url_of(name))) for node in cluster.nodes]
    keys = [ExtendKey(new_id(), new_id()) for _ in range(5)]
    rounds = 10
    failed: list[Exception] = []

    def write(database: Database) -> None:
        try:
            for _ in range(rounds):
                Journal(database).accept([Arrival(key=key) for key in keys])
        except JournalUnavailableError as ex:
            failed.append(ex)

    threads = [threading.Thread(target=write, args=(database,)) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    count = sa.text("SELECT COUNT(*) FROM transitions")
    wanted = len(databases) * rounds * len(keys)
    until(lambda: databases[0].read(lambda c: c.scalar(count)) >= wanted, "all nodes have it", seconds=HEALED)
    claimed = Claims(databases[0]).claim(100, report_within=60)
    assert {extend.key for extend in claimed} == set(keys)
    assert all(extend.wanted_gen >= len(databases) * rounds for extend in claimed)
    for database in databases:
        database.dispose()


def test_a_node_that_left_the_primary_component_is_left_without_a_traceback(
    cluster: Galera, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A proxy that keeps old connections where they are, as HAProxy does without on-marked-down."""
    first, last = cluster.nodes[0], cluster.nodes[-1]
    health = Health()
    with Proxy(first.port) as proxy:
        check = DatabaseCheck(health, "api.database")
        url = proxy.url(first.url_of(name))
        database = Database(JournalSettings(connection=url), results=check)
        part = DatabaseProbe(database, check, every=0.5).part("api.database", health)
        part.start()
        try:
            until(health.ready, "ready")
            caplog.set_level(logging.INFO)
            first.isolate(on=True)
            until(lambda: not health.ready(), "not ready", seconds=HEALED)
            reason = health.checks()["api.database"].reason
            proxy.retarget(last.port)
            until(health.ready, "ready on another node", seconds=HEALED)
            Journal(database).accept([Arrival(key=ExtendKey(new_id(), new_id()))])
        finally:
            part.stop()
            assert part.join(HEALED)
            first.isolate(on=False)
            until(lambda: first.status("wsrep_ready") == "ON", "the node is back", seconds=HEALED)
            database.dispose()
    assert "127.0.0.1" in reason
    assert not [record for record in caplog.records if record.exc_info]
    assert [record for record in caplog.records if record.name.startswith("sqlalchemy")] == []
    lines = [record for record in caplog.records if "not ready" in record.getMessage()]
    assert 1 <= len(lines) <= 3


@pytest.mark.skipif(not LONG, reason="three nodes: tools/test --long failover")
def test_a_node_that_was_killed_is_replaced_by_another(cluster: Galera, name: str) -> None:
    second = cluster.nodes[1]
    with Proxy(second.port) as proxy:
        database = Database(JournalSettings(connection=proxy.url(second.url_of(name))))
        journal = Journal(database)
        journal.accept([Arrival(key=ExtendKey(new_id(), new_id()))])
        second.kill()
        proxy.retarget(cluster.nodes[2].port)
        journal.accept([Arrival(key=ExtendKey(new_id(), new_id()))])
        second.start()
        database.dispose()
    count = sa.text("SELECT COUNT(*) FROM extends")
    back = Database(JournalSettings(connection=second.url_of(name)))
    until(lambda: back.read(lambda c: c.scalar(count)) == 2, "the node has caught up", seconds=HEALED)
    back.dispose()
