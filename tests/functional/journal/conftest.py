# SPDX-License-Identifier: Apache-2.0
"""The journal on the databases operators have, one server of each per session, an empty database per test."""

from collections.abc import Callable, Iterator

import pytest

from bridge.journal import migrate
from bridge.journal.database import Database
from bridge.journal.settings import JournalSettings
from tests.conftest import missing
from tests.lab.databases import MariaDB, PostgreSQL, Server, have_mariadb, have_postgresql
from tests.unit.journal.conftest import Bench, key

__all__ = ["key"]

_KINDS: dict[str, tuple[Callable[[], bool], type[Server]]] = {
    "mariadb": (have_mariadb, MariaDB),
    "postgresql": (have_postgresql, PostgreSQL),
}


@pytest.fixture(scope="session", params=sorted(_KINDS))
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server. Shared: a test that stops it starts it again before it ends."""
    have, kind = _KINDS[request.param]
    if not have():
        missing(request.param)
    with kind() as running:
        yield running


@pytest.fixture
def database(server: Server) -> Iterator[Database]:
    """An empty database with the journal's tables."""
    database = Database(JournalSettings(connection=server.new_url()))
    migrate.upgrade(database)
    yield database
    database.dispose()


@pytest.fixture
def bench(database: Database) -> Bench:
    """As in the unit tests."""
    return Bench(database)
