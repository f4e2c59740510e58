# SPDX-License-Identifier: Apache-2.0
"""The journal's own file."""

import os
import stat
from pathlib import Path

import pytest

from bridge.core.errors import JournalUnavailableError
from bridge.journal import migrate
from bridge.journal.database import Database
from bridge.journal.settings import JournalSettings
from tests.unit.journal.conftest import Bench


def mode(path: Path) -> int:
    """Its permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def test_the_journal_and_the_files_beside_it_are_ours_whatever_the_umask_is(tmp_path: Path) -> None:
    """A umask of 0 would make it 0644."""
    path = tmp_path / "journal.sqlite3"
    before = os.umask(0)
    try:
        database = Database(JournalSettings(connection=f"sqlite:///{path}"))
        migrate.upgrade(database)
        with database.engine.connect() as connection:
            connection.exec_driver_sql("select 1 from extends")
            assert {mode(file) for file in tmp_path.iterdir()} == {0o640}
            assert {file.name for file in tmp_path.iterdir()} >= {"journal.sqlite3", "journal.sqlite3-wal"}
        database.dispose()
    finally:
        os.umask(before)


def test_others_lose_their_rights_to_a_journal_of_0_1_0(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    path.touch()
    path.chmod(0o666)
    migrate.upgrade(Database(JournalSettings(connection=f"sqlite:///{path}")))
    assert mode(path) == 0o660


@pytest.mark.parametrize("name", ["journal.sqlite3", "journal.sqlite3-wal"])
def test_a_link_is_not_followed(tmp_path: Path, name: str) -> None:
    target = tmp_path / "target"
    (tmp_path / name).symlink_to(target)
    with pytest.raises(JournalUnavailableError, match="symbolic link"):
        migrate.upgrade(Database(JournalSettings(connection=f"sqlite:///{tmp_path / 'journal.sqlite3'}")))
    assert not target.exists()


def test_the_connection_that_was_used_last_is_used_again(bench: Bench) -> None:
    """SQLite reads its pages anew in a connection after another one has written."""
    taken = [bench.database.engine.raw_connection() for _ in range(3)]
    kept = [connection.driver_connection for connection in taken]
    for connection in taken:
        connection.close()
    assert bench.database.write_prepared(lambda c: c.connection.driver_connection) is kept[-1]
    assert bench.database.write_prepared(lambda c: c.connection.driver_connection) is kept[-1]
