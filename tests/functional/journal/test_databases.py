# SPDX-License-Identifier: Apache-2.0
"""What the journal does on SQLite it does on MariaDB and PostgreSQL: the same tests, and a server that goes."""

import threading

import pytest

from bridge.core.errors import JournalUnavailableError
from bridge.core.extend import Arrival, ExtendKey, new_id
from bridge.journal.database import Database
from bridge.journal.store import Journal
from tests.lab.databases import Server
from tests.lab.waiting import until
from tests.unit.journal.conftest import Bench
from tests.unit.journal.test_journal import *  # noqa: F403 - the point of this module

pytestmark = pytest.mark.functional


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
