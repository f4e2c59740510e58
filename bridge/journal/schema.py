# SPDX-License-Identifier: Apache-2.0
"""The schema's version: alembic's migrations live in this package and need no ini file."""

import functools
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from bridge.journal.database import Database


def sync(database: Database) -> str:
    """Bring the tables to the newest version; returns it. Raises SQLAlchemyError."""
    config = _config()
    with database.engine.connect() as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return head()


@functools.cache
def head() -> str:
    """The version this code wants."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def current(database: Database) -> str | None:
    """The version the database has, None when it is empty. Raises JournalUnavailableError."""

    def ask(connection: sa.Connection) -> str | None:
        revision: str | None = MigrationContext.configure(connection).get_current_revision()
        return revision

    return database.read(ask)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config
