# SPDX-License-Identifier: Apache-2.0
"""One request is one transaction: the states of its servers, the choice, and the rows it opens."""

from collections.abc import Mapping
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from bridge.core.errors import JournalUnavailableError
from bridge.core.extend import Arrival, ExtendKey, ServerState, new_id
from bridge.journal.accept import Journal
from bridge.journal.database import Prepared
from tests.unit.journal.conftest import Bench


def test_a_request_with_one_event_takes_four_round_trips(
    bench: Bench, key: ExtendKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a server, which needs none for BEGIN: states, the row, its line, commit."""
    bench.has("h1", key)
    bench.journal.admit([key.server_id], lambda _: [Arrival(key=key)])  # counts the backlog, once a second
    said: list[str] = []
    run = Prepared.rows

    def noted(prepared: Prepared, connection: sa.Connection, values: Mapping[str, Any]) -> list[Any]:
        said.append("prepared")
        return run(prepared, connection, values)

    monkeypatch.setattr(Prepared, "rows", noted)
    event.listen(bench.database.engine, "before_cursor_execute", lambda *about: said.append(about[2]))
    event.listen(bench.database.engine, "commit", lambda _: said.append("COMMIT"))
    bench.journal.admit([key.server_id], lambda _: [Arrival(key=key)])
    begun = [statement for statement in said if not statement.startswith("BEGIN")]  # SQLite's, PostgreSQL's
    assert begun == ["prepared", "prepared", "prepared", "COMMIT"]
    assert len(said) <= 5


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
