# SPDX-License-Identifier: Apache-2.0
"""A request with one event: one message to the server, no wait for what the engines write, nothing left open."""

import threading
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from bridge.core.errors import JournalUnavailableError
from bridge.core.extend import Arrival, ExtendKey, ServerState, new_id
from bridge.journal import accept
from bridge.journal.connect import DatabaseLimits
from bridge.journal.database import Database
from bridge.journal.settings import JournalSettings
from bridge.journal.tables import domains, extends, transitions
from tests.lab.databases import MariaDB, Server
from tests.lab.proxy import Link, Proxy, Way
from tests.unit.journal.conftest import Bench

pytestmark = pytest.mark.functional

_SOON = DatabaseLimits(lock=1, statement=3, checkout=3, total=8)


def _clear(url: str) -> str:
    """Return the URL without TLS, whose records a proxy cannot read."""
    return f"{url}&ssl_disabled=true" if url.startswith("mysql") else f"{url}?sslmode=disable"


@pytest.fixture
def soon(database: Database) -> Iterator[Bench]:
    """The journal with shorter limits, so that a wait for a lock is an error soon."""
    limited = Database(JournalSettings(connection=_url(database)), limits=_SOON)
    yield Bench(limited)
    limited.dispose()


def _url(database: Database) -> str:
    return database.engine.url.render_as_string(hide_password=False)


def _admit(bench: Bench, key: ExtendKey) -> set[ExtendKey]:
    return set(bench.journal.admit([key.server_id], lambda _: [Arrival(key=key)]))


def _count(bench: Bench, table: sa.Table) -> int:
    return bench.database.read(lambda c: int(c.scalar(sa.select(sa.func.count()).select_from(table)) or 0))


@pytest.mark.parametrize("times", [1, 2])
def test_an_event_is_one_message_to_the_server_whether_its_extend_is_open_or_not(
    times: int, server: Server, database: Database, key: ExtendKey
) -> None:
    Bench(database).has("h1", key)
    counting, messages = threading.Event(), list[bytes]()

    def look(_link: Link, way: Way, piece: bytes) -> bytes:
        if way is Way.UP and counting.is_set():
            messages.append(piece)
        return piece

    with Proxy(server.port, look=look) as proxy:
        near = Database(JournalSettings(connection=proxy.url(_clear(_url(database)))))
        bench = Bench(near)
        for _ in range(times):
            other = ExtendKey(key.server_id, new_id())
            assert _admit(bench, other) == {other}
        again = other if times > 1 else key
        counting.set()
        assert _admit(bench, again) == {again}
        counting.clear()
        near.dispose()
    assert len(messages) == 1
    assert b"INSERT INTO extends" in messages[0]
    assert b"COMMIT" in messages[0]


def test_an_event_does_not_wait_for_an_inventory_that_is_being_written(soon: Bench, key: ExtendKey) -> None:
    soon.has("h1", key)
    with soon.database.engine.connect() as other:
        other.execute(sa.update(domains).values(seen_at=7.0))  # and no commit
        assert _admit(soon, key) == {key}
        other.rollback()


def test_an_event_that_is_not_accepted_leaves_no_lock_behind(soon: Bench, key: ExtendKey) -> None:
    unknown = ExtendKey(new_id(), new_id())
    seen: list[object] = []

    def choose(states: object) -> list[Arrival]:
        seen.append(states)
        return [Arrival(key=unknown)] if states == {unknown.server_id: ServerState.ON_HOST} else []

    assert soon.journal.admit([unknown.server_id], choose) == {}
    assert seen[-1] == {}
    soon.has("h1", key)
    assert _admit(soon, key) == {key}
    assert [_count(soon, table) for table in (extends, transitions)] == [1, 1]


def test_a_lock_on_the_open_row_ends_the_wait_and_leaves_no_half_of_a_transaction(
    soon: Bench, key: ExtendKey
) -> None:
    soon.has("h1", key)
    assert _admit(soon, key) == {key}
    with soon.database.engine.connect() as other:
        other.execute(sa.update(extends).values(failures=0))  # and no commit
        with pytest.raises(JournalUnavailableError, match="other transactions hold these rows"):
            _admit(soon, key)
        other.rollback()
    assert _admit(soon, key) == {key}
    assert soon.database.read(lambda c: c.scalar(sa.select(extends.c.wanted_gen))) == 2
    assert _count(soon, transitions) == 2


def test_the_line_that_cannot_be_written_takes_its_row_with_it(bench: Bench, key: ExtendKey) -> None:
    bench.has("h1", key)
    with bench.database.engine.connect() as admin, admin.begin():
        admin.exec_driver_sql("ALTER TABLE transitions RENAME TO transitions_away")
    with pytest.raises(JournalUnavailableError):
        _admit(bench, key)
    with bench.database.engine.connect() as admin, admin.begin():
        admin.exec_driver_sql("ALTER TABLE transitions_away RENAME TO transitions")
    assert bench.claim() == []
    assert _admit(bench, key) == {key}


def test_a_server_in_the_mode_oracle_takes_an_event(server: Server, database: Database, key: ExtendKey) -> None:
    if not isinstance(server, MariaDB):
        pytest.skip("a mode of MariaDB")
    Bench(database).has("h1", key)
    oracle = Database(JournalSettings(connection=f"{_url(database)}&sql_mode=ORACLE"))
    assert _admit(Bench(oracle), key) == {key}
    oracle.dispose()


def test_a_server_without_blocks_takes_the_statements_of_several_events(
    server: Server, bench: Bench, key: ExtendKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MySQL 8 has neither blocks nor RETURNING."""
    if not isinstance(server, MariaDB):
        pytest.skip("MySQL's way is run on MariaDB alone")
    bench.has("h1", key)
    monkeypatch.setattr(bench.database.engine.dialect, "is_mariadb", False)
    monkeypatch.setattr(bench.database.engine.dialect, "insert_returning", False)
    monkeypatch.setattr(accept, "_open_one", None)
    for wanted in (1, 2):
        assert _admit(bench, key) == {key}
        (claimed,) = bench.claim()
        assert claimed.wanted_gen == wanted
