# SPDX-License-Identifier: Apache-2.0
"""A journal whose disk is really full: a small file system of its own, filled up, and emptied again."""

import os
import pwd
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from bridge.core.errors import JournalUnavailableError
from bridge.core.extend import Arrival, ExtendKey, new_id
from bridge.journal import migrate
from bridge.journal.accept import Journal
from bridge.journal.database import Database
from bridge.journal.settings import JournalSettings
from bridge.journal.watch import DatabaseCheck
from bridge.runtime.health import Health
from tests.chaos.gray_faults import full, small_disk
from tests.conftest import missing
from tests.lab.databases import PostgreSQL, have_postgresql

pytestmark = pytest.mark.functional
_MANY = 20_000


@pytest.fixture
def disk() -> Iterator[Path]:
    """A file system of 64 MiB."""
    with tempfile.TemporaryDirectory(prefix="eb-full-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        with small_disk(directory) as mounted:
            if not mounted:
                pytest.skip("file systems can be mounted by root only")
            yield directory


def _accept_many(journal: Journal, taken: list[str]) -> None:
    for _ in range(_MANY):
        arrivals = [Arrival(key=ExtendKey(new_id(), new_id()), request_id="r" * 100) for _ in range(100)]
        taken.extend(journal.accept(arrivals).values())


def _fills_up_and_heals(url: str, disk: Path) -> None:
    health, taken = Health(), list[str]()
    database = Database(JournalSettings(connection=url), results=DatabaseCheck(health, "api.database"))
    migrate.upgrade(database)
    journal = Journal(database, max_open=10**9)
    with full(disk):
        with pytest.raises(JournalUnavailableError, match="free space where the database keeps its files"):
            _accept_many(journal, taken)
        assert "free space" in health.checks()["api.database"].reason
    taken.extend(journal.accept([Arrival(key=ExtendKey(new_id(), new_id()))]).values())
    assert health.checks()["api.database"].ok
    rows = database.read(lambda c: c.execute(sa.text("SELECT id FROM extends")).scalars().all())
    assert sorted(rows) == sorted(taken), "what was acknowledged is there, and nothing else"
    database.dispose()


def test_sqlite_on_a_full_disk_says_so_and_goes_on_where_there_is_room(disk: Path) -> None:
    _fills_up_and_heals(f"sqlite:///{disk}/journal.sqlite3", disk)


def test_postgresql_with_a_full_tablespace_says_so_and_goes_on_where_there_is_room(disk: Path) -> None:
    if not have_postgresql():
        missing("postgresql")
    place = disk / "space"
    place.mkdir(mode=0o700)
    user = pwd.getpwnam("postgres")
    os.chown(place, user.pw_uid, user.pw_gid)
    with PostgreSQL() as server:
        admin = sa.create_engine(server.new_url(), isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.exec_driver_sql(f"CREATE TABLESPACE small LOCATION '{place}'")
            connection.exec_driver_sql("CREATE DATABASE on_small TABLESPACE small")
        url = admin.url.set(database="on_small")
        admin.dispose()
        _fills_up_and_heals(url.render_as_string(hide_password=False), disk)
