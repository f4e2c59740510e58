# SPDX-License-Identifier: Apache-2.0
"""The journal on a real SQLite file: arrivals, claims, waits, reports, hosts."""

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from bridge.core.errors import ConfigError, JournalUnavailableError
from bridge.core.extend import Arrival, ExtendKey, ServerState, new_id
from bridge.core.inventory import GuestState
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from bridge.engine.housekeeping import _SWEEP
from bridge.journal import migrate
from bridge.journal.accept import Journal
from bridge.journal.claims import CAST_WITHIN, Ended, Later
from bridge.journal.database import Database
from bridge.journal.retention import Retention
from bridge.journal.settings import JournalSettings, Keep
from bridge.journal.states import Move, State
from bridge.journal.tables import extends, metadata, transitions
from tests.unit.journal.conftest import HOST_TIMEOUT, REPORT_WITHIN, Bench


def rows(bench: Bench) -> Sequence[sa.Row[tuple[object, ...]]]:
    """All extends, open and closed."""
    return bench.database.read(lambda c: c.execute(sa.select(extends).order_by(extends.c.opened_at)).all())


def test_an_arrival_opens_an_extend_that_is_due_at_once(bench: Bench, key: ExtendKey) -> None:
    bench.arrive(key)
    (extend,) = bench.claim()
    assert (extend.key, extend.wanted_gen, extend.attempt, extend.request_id) == (key, 1, 1, "req-1")
    assert not extend.unreported


def test_arrivals_of_one_disk_share_one_open_row_and_count_its_generation(bench: Bench, key: ExtendKey) -> None:
    bench.arrive(key, "req-1")
    bench.arrive(key, "req-2")
    (extend,) = bench.claim()
    assert (extend.wanted_gen, extend.request_id) == (2, "req-2")
    seen = bench.database.read(lambda c: c.scalars(sa.select(transitions.c.request_id)).all())
    assert list(seen) == ["req-1", "req-2"]  # every arrival keeps its own request id


def test_several_arrivals_of_one_request_are_one_generation(bench: Bench, key: ExtendKey) -> None:
    bench.journal.accept([Arrival(key=key), Arrival(key=key)])
    assert bench.claim()[0].wanted_gen == 1


def test_a_claimed_extend_is_not_due_for_another_engine_until_its_report_is_overdue(
    bench: Bench, key: ExtendKey
) -> None:
    bench.arrive(key)
    assert len(bench.claim()) == 1
    assert bench.claim() == []
    bench.now += REPORT_WITHIN
    (again,) = bench.claim()
    assert (again.attempt, again.unreported) == (2, True)


def test_a_claim_whose_engine_or_database_died_before_the_order_is_due_again_within_a_minute(
    bench: Bench, key: ExtendKey
) -> None:
    """No host has an order, so nothing is waited for. The answer to the claim's commit may have been lost."""
    bench.arrive(key)
    assert len(bench.claim()) == 1
    bench.now += CAST_WITHIN
    assert bench.work.return_unordered(report_within=REPORT_WITHIN) == 0
    bench.now += 1
    assert bench.work.return_unordered(report_within=REPORT_WITHIN) == 1
    assert [again.attempt for again in bench.claim()] == [2]
    assert bench.work.return_unordered(report_within=REPORT_WITHIN) == 0
    assert CAST_WITHIN + _SWEEP < 60 < REPORT_WITHIN


def test_an_extend_with_an_order_waits_for_its_report(bench: Bench, key: ExtendKey) -> None:
    bench.arrive(key)
    (extend,) = bench.claim()
    bench.dispatch(extend, "host-1")
    bench.now += REPORT_WITHIN - 1
    assert bench.work.return_unordered(report_within=REPORT_WITHIN) == 0
    assert bench.claim() == []
    bench.now += 1
    (again,) = bench.claim()
    bench.now += CAST_WITHIN + 1
    assert again.unreported
    assert bench.work.return_unordered(report_within=REPORT_WITHIN) == 1, "the second claim has no order"


def test_an_extend_that_was_put_off_is_not_returned(bench: Bench, key: ExtendKey) -> None:
    bench.arrive(key)
    (extend,) = bench.claim()
    bench.work.wait([Later(extend=extend, reason=Reason.CINDER_UNREACHABLE, due_at=bench.now + 200, failures=1)])
    bench.now += CAST_WITHIN + 1
    assert bench.work.return_unordered(report_within=REPORT_WITHIN) == 0


@pytest.mark.parametrize("report_within", [1.0, CAST_WITHIN])
def test_a_short_time_for_reports_is_its_own_return(bench: Bench, key: ExtendKey, report_within: float) -> None:
    bench.arrive(key)
    assert len(bench.work.claim(1, report_within=report_within)) == 1
    bench.now += report_within
    assert bench.work.return_unordered(report_within=report_within) == 0
    assert len(bench.claim()) == 1


def test_two_engines_never_claim_the_same_attempt(bench: Bench) -> None:
    for _ in range(40):
        bench.arrive(ExtendKey(new_id(), new_id()))
    taken: list[tuple[str, int]] = []
    together = threading.Barrier(4)

    def engine() -> None:
        together.wait()
        taken.extend((e.id, e.attempt) for _ in range(4) for e in bench.work.claim(10, report_within=300))

    threads = [threading.Thread(target=engine) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(set(taken)) == 40


def test_a_newer_arrival_makes_a_dispatched_extend_due_at_once(bench: Bench, key: ExtendKey) -> None:
    bench.arrive(key)
    bench.claim()
    bench.arrive(key)
    (again,) = bench.claim()
    assert (again.wanted_gen, again.attempt) == (2, 2)


def test_putting_off_does_not_swallow_an_arrival_that_came_meanwhile(bench: Bench, key: ExtendKey) -> None:
    bench.arrive(key)
    (claimed,) = bench.claim()
    bench.arrive(key)
    bench.work.wait([Later(extend=claimed, reason=Reason.NO_HOST, due_at=bench.now + 500, failures=1)])
    assert len(bench.claim()) == 1


def test_ending_does_not_swallow_an_arrival_that_came_meanwhile(bench: Bench, key: ExtendKey) -> None:
    bench.arrive(key)
    (claimed,) = bench.claim()
    bench.arrive(key)
    bench.work.end([Ended(extend=claimed, outcome=Outcome.DETACHED, reason="detached")])
    assert len(bench.claim()) == 1


def test_a_verified_report_closes_and_the_next_arrival_opens_a_new_row(bench: Bench, key: ExtendKey) -> None:
    bench.arrive(key)
    (attempt,) = bench.dispatch(bench.claim()[0], "h1")
    taken = bench.report(attempt, Outcome.RESIZED)
    assert taken.settled[0].decision is not None
    assert taken.settled[0].decision.move is Move.CLOSE
    bench.now += 1
    bench.arrive(key)
    old, new = rows(bench)
    assert (old.state, old.open, old.outcome) == (State.CLOSED, None, Outcome.RESIZED)
    assert (new.state, new.open, new.wanted_gen) == (State.DUE, 1, 1)


def test_a_success_of_the_older_generation_leaves_the_newer_one_due(bench: Bench, key: ExtendKey) -> None:
    bench.arrive(key)
    (attempt,) = bench.dispatch(bench.claim()[0], "h1")
    bench.arrive(key)
    bench.report(attempt, Outcome.RESIZED)
    (again,) = bench.claim()
    assert again.wanted_gen == 2


def test_a_report_delivered_twice_in_one_batch_settles_once(bench: Bench, key: ExtendKey) -> None:
    bench.arrive(key)
    (attempt,) = bench.dispatch(bench.claim()[0], "h1")
    first = bench.report(attempt, Outcome.BUSY, after=None)
    second = bench.report(attempt, Outcome.BUSY, after=None)
    moves = [s.decision.move for t in (first, second) for s in t.settled if s.decision is not None]
    assert moves == [Move.AGAIN, Move.IGNORE]


def test_a_report_of_an_attempt_nobody_wrote_down_changes_nothing(bench: Bench, key: ExtendKey) -> None:
    bench.arrive(key)
    (attempt,) = bench.dispatch(bench.claim()[0], "h1")
    forged = type(attempt)(id=new_id(), extend=attempt.extend, host="h1", target=attempt.target)
    assert bench.report(forged, Outcome.RESIZED).settled[0].decision is None
    assert rows(bench)[0].open == 1


def test_a_host_cannot_settle_another_hosts_attempt(bench: Bench, key: ExtendKey) -> None:
    bench.arrive(key)
    (attempt,) = bench.dispatch(bench.claim()[0], "h1")
    bench.report(attempt, Outcome.RESIZED, host="h2")
    assert rows(bench)[0].open == 1


def test_what_waits_for_a_silent_host_is_due_when_the_host_is_heard_again(bench: Bench, key: ExtendKey) -> None:
    bench.has("h1", key)
    bench.arrive(key)
    bench.now += HOST_TIMEOUT + 1
    (claimed,) = bench.claim()
    assert [at.fresh for at in bench.work.locate([claimed], host_timeout=HOST_TIMEOUT)[key.server_id]] == [False]
    bench.work.wait(
        [Later(extend=claimed, reason=Reason.HOST_DOWN, due_at=bench.now + 3000, failures=0, waiting_for="h1")]
    )
    assert bench.claim() == []
    assert bench.has("h1", key).came_up == ["h1"]
    assert len(bench.claim()) == 1


def test_a_restarted_agent_gets_again_what_its_last_run_had_in_hand(bench: Bench, key: ExtendKey) -> None:
    bench.has("h1", key)
    bench.arrive(key)
    bench.dispatch(bench.claim()[0], "h1")
    assert bench.claim() == []
    bench.boot, bench.seq = new_id(), 0
    bench.has("h1", key)
    (again,) = bench.claim()
    assert again.attempt == 2


def test_an_inventory_that_comes_late_does_not_undo_a_newer_one(bench: Bench, key: ExtendKey) -> None:
    old = bench.message("h1")
    bench.has("h1", key)
    bench.reported.take([old])
    stale = bench.message("h1")
    object.__setattr__(stale, "seq", 1)
    bench.reported.take([stale])
    assert bench.journal.standing([key.server_id]) == {key.server_id: ServerState.ON_HOST}


def test_a_server_its_host_no_longer_reports_is_known_but_on_no_host(bench: Bench, key: ExtendKey) -> None:
    bench.has("h1", key)
    bench.has("h1")
    assert bench.journal.standing([key.server_id, new_id()]) == {key.server_id: ServerState.NO_HOST}


def test_a_partial_inventory_leaves_the_other_servers_alone(bench: Bench, key: ExtendKey) -> None:
    other = ExtendKey(new_id(), new_id())
    bench.has("h1", key)
    bench.has("h1", other, full=False)
    found = bench.journal.standing([key.server_id, other.server_id])
    assert set(found.values()) == {ServerState.ON_HOST}
    assert len(found) == 2


def test_a_migrating_server_is_located_on_both_hosts(bench: Bench, key: ExtendKey) -> None:
    bench.has("h1", key)
    bench.has("h2", key, state=GuestState.INCOMING)
    bench.arrive(key)
    found = bench.work.locate(bench.claim(), host_timeout=HOST_TIMEOUT)[key.server_id]
    assert {(at.host, at.state) for at in found} == {("h1", GuestState.ACTIVE), ("h2", GuestState.INCOMING)}


def test_an_old_open_extend_is_marked_overdue_once_and_goes_on(bench: Bench, key: ExtendKey) -> None:
    bench.arrive(key)
    assert bench.work.mark_overdue(older_than=10) == []
    bench.now += 11
    assert [x.key for x in bench.work.mark_overdue(older_than=10)] == [key]
    assert bench.work.mark_overdue(older_than=10) == []
    assert len(bench.claim()) == 1


def test_a_weekends_backlog_is_marked_overdue_in_bites(bench: Bench) -> None:
    """PostgreSQL takes 65,535 parameters in a statement; [journal] max_open allows more rows than that."""
    keys = [ExtendKey(new_id(), new_id()) for _ in range(1_200)]
    bench.journal.accept([Arrival(key=key) for key in keys])
    bench.now += 11
    marked: list[list[ExtendKey]] = []
    while some := bench.work.mark_overdue(older_than=10):
        marked.append([x.key for x in some])
    assert max(map(len, marked)) <= 500
    assert sorted(key for some in marked for key in some) == sorted(keys)


def test_a_clock_that_is_set_back_delays_nothing(bench: Bench, key: ExtendKey) -> None:
    bench.has("h1", key)
    bench.arrive(key)
    bench.claim()
    bench.now -= 86400
    (again,) = bench.claim()  # its report was to be awaited until a time that is now a day away
    (at,) = bench.work.locate([again], host_timeout=HOST_TIMEOUT)[key.server_id]
    assert not at.fresh  # heard in the future: says nothing, the next heartbeat will
    bench.has("h1", key)
    (at,) = bench.work.locate([again], host_timeout=HOST_TIMEOUT)[key.server_id]
    assert at.fresh


def test_a_clock_that_is_set_forward_costs_one_more_cast(bench: Bench, key: ExtendKey) -> None:
    bench.arrive(key)
    (attempt,) = bench.dispatch(bench.claim()[0], "h1")
    bench.now += 86400
    assert len(bench.claim()) == 1
    bench.report(attempt, Outcome.RESIZED)
    assert rows(bench)[0].open is None


def test_two_agents_under_one_name_are_told_from_one_that_restarts(bench: Bench, key: ExtendKey) -> None:
    runs = [new_id() for _ in range(4)]

    def heard(boot: str) -> bool:
        bench.boot = boot
        return bench.has("h1", key).duplicate == ["h1"]

    assert not any(heard(boot) for boot in runs)  # restarts
    assert not any(heard(boot) for boot in (runs[2], runs[3]))  # a message of the run before, delivered late
    assert any(heard(boot) for boot in (runs[2], runs[3]) * 3)  # two that live on


def test_what_was_closed_on_the_source_of_a_migration_is_looked_at_again_on_its_target(
    bench: Bench, key: ExtendKey
) -> None:
    bench.has("h1", key)
    bench.has("h2", key, state=GuestState.INCOMING)
    bench.arrive(key)
    (attempt, _) = bench.dispatch(bench.claim()[0], "h1", "h2")
    bench.report(attempt, Outcome.RESIZED)
    assert bench.claim() == []
    bench.has("h1")
    bench.has("h2", key)
    (again,) = bench.claim()
    assert again.key == key
    (attempt,) = bench.dispatch(again, "h2")
    bench.report(attempt, Outcome.ALREADY)
    bench.has("h2", key)
    assert bench.claim() == []


def test_a_guest_that_starts_again_on_its_own_host_opens_nothing(bench: Bench, key: ExtendKey) -> None:
    bench.has("h1", key)
    bench.arrive(key)
    (attempt,) = bench.dispatch(bench.claim()[0], "h1")
    bench.report(attempt, Outcome.RESIZED)
    bench.has("h1", key, state=GuestState.OFF)
    bench.has("h1", key)
    assert bench.claim() == []


def test_above_its_limit_the_journal_takes_no_more_and_says_when_to_come_back(bench: Bench) -> None:
    journal = Journal(bench.database, max_open=2)
    journal.accept([Arrival(key=ExtendKey(new_id(), new_id())) for _ in range(2)])
    journal = Journal(bench.database, max_open=2)  # another process, which counts for itself
    with pytest.raises(JournalUnavailableError, match="max_open") as refused:
        journal.accept([Arrival(key=ExtendKey(new_id(), new_id()))])
    assert refused.value.retry_after > 0
    assert len(rows(bench)) == 2


def test_what_ended_long_ago_is_forgotten_with_its_history_and_nothing_else(bench: Bench, key: ExtendKey) -> None:
    retention = Retention(bench.database, Keep(closed_days=30, gone_days=7), clock=lambda: bench.now)
    other = ExtendKey(new_id(), new_id())
    bench.has("h1", key, other)
    bench.arrive(key)
    bench.arrive(other)
    first = next(x for x in bench.claim() if x.key == key)
    bench.report(bench.dispatch(first, "h1")[0], Outcome.RESIZED)
    bench.now += 29 * 86400
    bench.has("h1", key)
    assert retention.forget() == 0
    bench.now += 2 * 86400
    assert retention.forget() == 1  # the closed extend
    bench.now += 6 * 86400
    bench.has("h1", key)
    assert retention.forget() == 1  # the server that is gone for eight days
    assert [row.server_id for row in rows(bench)] == [other.server_id]  # open, however old
    assert bench.journal.standing([key.server_id, other.server_id]) == {key.server_id: ServerState.ON_HOST}
    left = bench.database.read(lambda c: c.scalars(sa.select(transitions.c.extend_id)).all())
    assert set(left) == {rows(bench)[0].id}


def test_a_journal_without_tables_says_what_to_run(tmp_path: Path) -> None:
    journal = Journal(Database(JournalSettings(connection=f"sqlite:///{tmp_path / 'new.sqlite3'}")))
    assert "extend-bridge-manage db sync" in str(journal.ping())


def test_a_journal_that_is_away_is_an_error_that_says_so(tmp_path: Path, key: ExtendKey) -> None:
    journal = Journal(Database(JournalSettings(connection=f"sqlite:///{tmp_path / 'no' / 'such' / 'dir.sqlite3'}")))
    with pytest.raises(JournalUnavailableError, match="unable to open database file"):
        journal.accept([Arrival(key=key)])


@pytest.mark.parametrize("url", ["nonsense", "oracle+nothing://x/y", "sqlite+nodriver:///x"])
def test_a_connection_nobody_can_use_is_one_clear_line(url: str) -> None:
    with pytest.raises(ConfigError, match=r"\[journal\] connection"):
        Database(JournalSettings(connection=url))


def test_a_journal_of_the_release_before_is_upgraded_with_what_is_in_it(bench: Bench, key: ExtendKey) -> None:
    old = Database(JournalSettings(connection=bench.database.engine.url.render_as_string(hide_password=False)))
    bench.database.write(metadata.drop_all)
    bench.database.write(lambda c: c.execute(sa.text("DROP TABLE alembic_version")))
    assert migrate.upgrade(old, "0001") == "0001"
    row = (
        "INSERT INTO extends"
        " (id, server_id, volume_id, open, state, source, wanted_gen, attempt, failures, due_at, opened_at)"
        " VALUES (:id, :server, :volume, 1, 'due', 'api', 1, 0, 0, 0, 0)"
    )
    values = {"id": new_id(), "server": key.server_id, "volume": key.volume_id}
    bench.database.write(lambda c: c.execute(sa.text(row), values))
    assert "db sync" in str(migrate.problem(old)), "this release wants more"
    assert migrate.upgrade(old) == migrate.head()
    assert migrate.problem(old) is None
    assert [extend.key for extend in bench.claim()] == [key]
    old.dispose()


def test_the_release_before_goes_on_with_tables_one_version_newer_and_leaves_them_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = migrate.head()
    monkeypatch.setattr(migrate, "head", lambda: f"{int(newest) - 1:04}")
    assert migrate.problem(bench.database) is None
    assert migrate.upgrade(bench.database) == newest
    monkeypatch.setattr(migrate, "head", lambda: f"{int(newest) - 2:04}")
    assert "db sync" in str(migrate.problem(bench.database))


def test_migrations_make_exactly_the_tables_the_code_uses(bench: Bench) -> None:
    """Tables, columns, types, nullability, indexes and unique keys, compared by alembic."""

    def differences(connection: sa.Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, metadata))

    assert bench.database.read(differences) == []
    assert migrate.problem(bench.database) is None


def test_the_newest_version_is_the_one_alembic_ends_at() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_heads() == [migrate.head()]
