# SPDX-License-Identifier: Apache-2.0
"""The schema's version: alembic's migrations live in this package and need no ini file.

alembic is 11 MiB, so only a process that migrates loads it. The version of the tables and the version this code
wants take one row and the names of the migrations.
"""

import functools
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from bridge.journal.database import Database

_MIGRATIONS: Final = Path(__file__).parent / "migrations"
_VERSION: Final = sa.table("alembic_version", sa.column("version_num"))


def upgrade(database: Database, version: str = "head") -> str:
    """Bring the tables to the newest version; return their version. Raises JournalUnavailableError.

    Tables of a newer release stay as they are.

    Several processes may do this at once on SQLite; elsewhere run it once (`extend-bridge-manage db sync`).
    """

    def work(connection: sa.Connection) -> str:
        have, want = _current(connection), head() if version == "head" else version
        if have is not None and int(have) >= int(want):
            return have
        from alembic import command  # noqa: PLC0415 - see the top
        from alembic.config import Config  # noqa: PLC0415

        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, version)
        return want

    patient = database.without_limits()
    try:
        return patient.write(work)
    finally:
        patient.dispose()


@functools.cache
def head() -> str:
    """Return the version that this code wants."""
    return max(file.name.partition("_")[0] for file in (_MIGRATIONS / "versions").glob("[0-9]*_*.py"))


def current(database: Database) -> str | None:
    """Return the version of the database, None for an empty database. Raises JournalUnavailableError."""
    return database.read(_current)


def problem(database: Database) -> str | None:
    """Return None if this code can use the tables, else what to do. Raises JournalUnavailableError.

    Tables one version newer are fine, because in a rolling upgrade `db sync` comes first. A migration only adds
    what the release before does not miss.
    """
    have, want = current(database), head()
    if have is not None and int(have) - int(want) in {0, 1}:
        return None
    return f"the journal's tables are at version {have or 'none'}, not {want}: run `extend-bridge-manage db sync`"


def _current(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(_VERSION.name):
        return None
    version: str | None = connection.execute(sa.select(_VERSION.c.version_num)).scalar()
    return version
