# SPDX-License-Identifier: Apache-2.0
"""One request is one transaction: the states of its servers, the choice, and the rows it opens."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import mysql

from bridge.core.errors import JournalRefusedError, JournalUnavailableError
from bridge.core.extend import Arrival, ExtendKey, ServerState, new_id
from bridge.journal import accept
from bridge.journal.accept import Journal, open_alone
from bridge.journal.database import Database, Prepared, PreparedBlock
from bridge.journal.inventory import GONE
from bridge.journal.settings import JournalSettings
from tests.lab.ports import steady_port
from tests.unit.journal.conftest import Bench


def test_a_request_with_one_event_takes_the_fewest_statements(
    bench: Bench, key: ExtendKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL and MariaDB need one message; SQLite the row and its line, and one more for a row that is open."""
    bench.has("h1", key)
    bench.journal.admit([key.server_id], lambda _: [Arrival(key=ExtendKey(key.server_id, new_id()))])  # counts
    said: list[str] = []
    for owner in (Prepared, PreparedBlock):
        for name in ("rows", "changed", "alone", "run_many"):
            if hasattr(owner, name):
                monkeypatch.setattr(owner, name, noted(getattr(owner, name), name, said))
    event.listen(bench.database.engine, "before_cursor_execute", lambda *about: said.append(about[2]))
    alone = {"postgresql": ["alone"], "mysql": ["alone", "rows"], "mariadb": ["alone", "rows"]}
    dialect = bench.database.engine.dialect.name
    bench.journal.admit([key.server_id], lambda _: [Arrival(key=key)])
    assert said == alone.get(dialect, ["changed", "rows"])
    said.clear()
    bench.journal.admit([key.server_id], lambda _: [Arrival(key=key)])
    assert said == alone.get(dialect, ["changed", "rows", "rows"])


def noted(method: Callable[..., Any], name: str, said: list[str]) -> Callable[..., Any]:
    """Return the method, which also notes its name."""

    def run(*given: Any) -> Any:
        said.append(name)
        return method(*given)

    return run


def test_a_server_on_no_host_or_unknown_is_told_to_the_choice(bench: Bench, key: ExtendKey) -> None:
    """The one statement that looks for the server itself must not hide its state from the answer."""
    seen: list[Mapping[str, ServerState]] = []

    def choose(states: Mapping[str, ServerState]) -> list[Arrival]:
        seen.append(states)
        return [Arrival(key=key)] if states.get(key.server_id) is ServerState.ON_HOST else []

    assert bench.journal.admit([key.server_id], choose) == {}
    assert seen[-1] == {}
    bench.has("h1", key)
    assert set(bench.journal.admit([key.server_id], choose)) == {key}
    assert seen[-1] == {key.server_id: ServerState.ON_HOST}
    bench.database.write(lambda c: c.exec_driver_sql(f"UPDATE domains SET state = '{GONE}'"))
    assert bench.journal.admit([key.server_id], choose) == {}
    assert seen[-1] == {key.server_id: ServerState.NO_HOST}


@pytest.mark.parametrize("driver", ["psycopg", "pymysql"])
def test_each_try_of_an_event_has_an_id_of_its_own(driver: str, key: ExtendKey) -> None:
    """A try whose answer was lost may have opened a row that is closed by now."""
    seen: list[Any] = []

    class Tried:
        engine = SimpleNamespace(driver=driver, dialect=SimpleNamespace(is_mariadb=True))

        def write_alone(
            self, _statement: object, values: Callable[[], Mapping[str, Any]], *, kind: str
        ) -> list[Any]:
            seen.extend(values()["id"] for _ in kind)
            return [(seen[-1],)]

    tried = cast("Database", Tried())
    assert open_alone(tried, Arrival(key=key), on_host=True, now=1.0, kind="ab") == {key: seen[-1]}
    assert len(set(seen)) == 2


def test_a_choice_that_raises_leaves_no_open_transaction(bench: Bench, key: ExtendKey) -> None:
    """The pool does not reset connections, so the transaction itself must."""
    bench.has("h1", key)

    def fails(_: Mapping[str, ServerState]) -> list[Arrival]:
        raise KeyError("x")

    for _ in range(3):
        with pytest.raises(KeyError):
            bench.journal.admit([key.server_id], fails)
    assert set(bench.journal.admit([key.server_id], lambda _: [Arrival(key=key)])) == {key}
    other = Journal(bench.database)
    assert set(other.accept([Arrival(key=key)])) == {key}


@pytest.mark.parametrize("others", [0, 3])
def test_an_arrival_opens_a_row_and_the_next_one_raises_its_generation(
    others: int, bench: Bench, key: ExtendKey
) -> None:
    """Alone by one statement, among others by several: the rows are the same."""
    more = [Arrival(key=ExtendKey(new_id(), new_id())) for _ in range(others)]
    first = bench.journal.accept([Arrival(key=key, request_id="req-1"), *more])[key]
    claimed = {x.key: x for x in bench.claim()}
    assert claimed[key].wanted_gen == 1
    bench.now += 5
    again = Arrival(key=key, request_id="req-2", global_request_id="req-g")
    assert bench.journal.accept([again, *more])[key] == first
    taken = {x.key: x for x in bench.claim()}[key]
    assert (taken.id, taken.wanted_gen, taken.attempt, taken.failures) == (first, 2, 2, 0)
    assert (taken.request_id, taken.global_request_id, taken.opened_at) == ("req-2", "req-g", bench.now - 5)
    lines = sa.text("SELECT COUNT(*) FROM transitions WHERE extend_id = :id AND event = 'accepted'")
    assert bench.database.read(lambda c: c.scalar(lines, {"id": first})) == 2


def test_a_closed_row_is_not_raised_but_a_new_one_opened(bench: Bench, key: ExtendKey) -> None:
    first = bench.journal.accept([Arrival(key=key)])[key]
    bench.database.write(lambda c: c.exec_driver_sql("UPDATE extends SET open = NULL, state = 'closed'"))
    assert bench.journal.accept([Arrival(key=key)])[key] != first


def test_what_is_not_chosen_is_not_opened_and_a_full_journal_refuses_only_what_is(
    bench: Bench, key: ExtendKey
) -> None:
    bench.has("h1", key)
    seen: list[Mapping[str, ServerState]] = []

    def none(states: Mapping[str, ServerState]) -> list[Arrival]:
        seen.append(states)
        return []

    full = Journal(bench.database, max_open=0)
    assert full.admit([key.server_id, new_id()], none) == {}
    assert seen == [{key.server_id: ServerState.ON_HOST}]
    with pytest.raises(JournalUnavailableError, match="max_open is 0"):
        full.admit([key.server_id], lambda _: [Arrival(key=key)])
    assert bench.claim() == []


@pytest.mark.parametrize("driver", ["mysql+pymysql", "postgresql+psycopg"])
def test_a_database_that_cannot_be_reached_is_an_error_in_words_for_an_event_as_well(driver: str) -> None:
    """The way without SQLAlchemy's own connection makes its own errors of the driver's."""
    pytest.importorskip(driver.partition("+")[2])
    seen: list[tuple[str, bool]] = []

    class Noted:
        def succeeded(self, kind: str, *, wrote: bool) -> None:
            raise AssertionError(kind, wrote)

        def failed(self, kind: str, why: str, *, general: bool) -> None:
            seen.append((why, general))

    settings = JournalSettings(connection=f"{driver}://u:secret@127.0.0.1:{steady_port()}/x")
    database = Database(settings, results=Noted())
    with pytest.raises(JournalUnavailableError, match="cannot be used"):
        database.write_prepared(lambda _: None)
    ((why, general),) = seen
    assert general
    assert "127.0.0.1" in why
    assert "secret" not in why


def test_a_value_that_no_row_can_hold_is_refused_and_leaves_the_connection_usable(
    bench: Bench, key: ExtendKey
) -> None:
    bench.has("h1", key)
    bad = Arrival(key=ExtendKey(key.server_id, "\ud800"))
    with pytest.raises(JournalRefusedError):
        bench.journal.admit([key.server_id], lambda _: [bad])
    assert set(bench.journal.admit([key.server_id], lambda _: [Arrival(key=key)])) == {key}


@pytest.mark.parametrize("name", ["_OPEN", "_RAISE_BY_INSERT", "ACCEPTED"])
def test_pymysql_sends_the_rows_of_a_request_in_one_statement(name: str) -> None:
    """It does so only for rows of bound values alone; else each row costs a round trip."""
    cursors = pytest.importorskip("pymysql.cursors")
    statement = getattr(accept, name)._statement
    text = str(statement.compile(dialect=mysql.pymysql.dialect()))
    assert cursors.RE_INSERT_VALUES.match(text)
