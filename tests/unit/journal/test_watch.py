# SPDX-License-Identifier: Apache-2.0
"""One check for the journal: bad from the first failure until a write is committed, without flapping."""

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from bridge.core.errors import JournalUnavailableError
from bridge.core.extend import ExtendKey
from bridge.journal import migrate
from bridge.journal.accept import Journal
from bridge.journal.database import Database
from bridge.journal.settings import JournalSettings
from bridge.journal.tables import passes
from bridge.journal.watch import DatabaseCheck, DatabaseProbe, DueWatch
from bridge.runtime.health import Health
from tests.lab.waiting import until
from tests.unit.journal.conftest import Bench

CHECK = "engine.database"


class Site:
    """A check on a clock of the test's."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.health = Health(clock=self.clock)
        self.check = DatabaseCheck(self.health, CHECK, clock=self.clock)

    def clock(self) -> float:
        return self.now

    @property
    def reason(self) -> str:
        return self.health.checks()[CHECK].reason

    def ok(self) -> bool:
        return self.health.checks()[CHECK].ok


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Database]:
    database = Database(JournalSettings(connection=f"sqlite:///{tmp_path / 'new.sqlite3'}"))
    yield database
    database.dispose()


def test_a_read_does_not_make_it_ready_and_a_write_does(site: Site) -> None:
    site.check.succeeded("claim", wrote=False)
    assert not site.ok()
    site.check.succeeded("accept", wrote=True)
    assert site.ok()


def test_it_goes_bad_by_itself_when_no_write_is_heard_of(site: Site) -> None:
    site.check.succeeded("accept", wrote=True)
    site.now += 31
    assert not site.ok()


def test_a_lost_connection_is_forgotten_with_any_write(site: Site) -> None:
    site.check.failed("accept", "connection lost", general=True)
    assert not site.ok()
    site.check.succeeded("probe", wrote=True)
    assert site.ok()


def test_two_writers_of_which_one_fails_do_not_make_it_flap(site: Site) -> None:
    """A full disk: a small write goes into what is left of the log, a batch of reports does not."""
    for _ in range(50):
        site.check.failed("reports", "disk is full", general=False)
        site.now += 2
        site.check.succeeded("probe", wrote=True)
        site.now += 2
        assert not site.ok()
        assert site.reason == "disk is full"
    site.check.succeeded("reports", wrote=True)
    assert site.ok()


def test_a_failure_that_is_never_repeated_does_not_hold_the_check_for_ever(site: Site) -> None:
    site.check.failed("retention", "too slow", general=False)
    site.now += 21
    site.check.succeeded("probe", wrote=True)
    assert site.ok()


def test_the_probe_waits_for_the_tables_and_says_what_to_run(site: Site, empty: Database) -> None:
    empty.results = site.check
    probe = DatabaseProbe(empty, site.check)
    assert not probe.probe()
    assert "extend-bridge-manage db sync" in site.reason
    assert not probe.usable.is_set()
    migrate.upgrade(empty)
    assert probe.probe()
    assert probe.usable.is_set()
    assert site.ok()
    assert empty.read(lambda c: c.scalar(sa.select(sa.func.count()).select_from(passes))) == 0


def test_the_probe_brings_tables_up_to_date_where_that_is_wanted(site: Site, empty: Database) -> None:
    assert DatabaseProbe(empty, site.check, sync=True).probe()


def test_bodies_wait_for_usable_tables_and_end_when_told(site: Site, empty: Database) -> None:
    probe, ran, stop = DatabaseProbe(empty, site.check), threading.Event(), threading.Event()
    waiting = threading.Thread(target=probe.when_usable(lambda _: ran.set()), args=(stop,))
    waiting.start()
    stop.set()
    waiting.join(60)
    assert not ran.is_set()
    probe.usable.set()
    probe.when_usable(lambda _: ran.set())(threading.Event())
    assert ran.is_set()


def test_a_journal_that_another_process_has_locked_is_not_ready_and_gets_well(
    site: Site, tmp_path: Path, key: ExtendKey
) -> None:
    url = f"sqlite:///{tmp_path / 'new.sqlite3'}?timeout=0.1"  # an option of the URL replaces ours
    database = Database(JournalSettings(connection=url), results=site.check)
    assert DatabaseProbe(database, site.check, sync=True).probe()
    bench = Bench(database)
    other = sqlite3.connect(str(database.engine.url.database), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(JournalUnavailableError, match="another process holds the write lock"):
            bench.arrive(key)
        assert not site.ok()
    finally:
        other.execute("ROLLBACK")
        other.close()
    bench.arrive(key)
    assert site.ok()
    database.dispose()


def test_a_full_disk_keeps_the_check_bad_and_names_itself(site: Site, bench: Bench, key: ExtendKey) -> None:
    database = bench.database
    database.results = site.check

    def full(connection: sa.Connection) -> None:
        connection.exec_driver_sql(
            f"PRAGMA max_page_count = {connection.exec_driver_sql('PRAGMA page_count').scalar()}"
        )

    database.write(full)  # SQLite then says what it says on a disk without room

    def fill() -> None:
        for number in range(1000):
            bench.arrive(ExtendKey(key.server_id, f"{number:036}"))

    with pytest.raises(JournalUnavailableError, match="free space where the database keeps its files"):
        fill()
    assert not site.ok()


def test_the_oldest_due_extend_is_old_until_it_moves(bench: Bench, key: ExtendKey) -> None:
    due = DueWatch(clock=lambda: bench.now)
    bench.database.read(due.look)
    assert due.oldest() is None
    bench.arrive(key)
    bench.database.read(due.look)
    first = due.oldest()
    assert first is not None
    until(lambda: (due.oldest() or 0) > first, "it gets older")
    bench.claim()
    bench.database.read(due.look)
    assert due.oldest() is None


def test_the_ping_of_a_request_proves_a_write(bench: Bench) -> None:
    wrote: list[str] = []

    class Results:
        def succeeded(self, kind: str, *, wrote: bool) -> None:
            if wrote:
                writes.append(kind)

        def failed(self, kind: str, why: str, *, general: bool) -> None:
            raise AssertionError(why)

    writes = wrote
    bench.database.results = Results()
    assert Journal(bench.database).ping() is None
    assert wrote
