# SPDX-License-Identifier: Apache-2.0
"""[journal]: where it is."""

from dataclasses import dataclass

from oslo_config import cfg

JOURNAL_OPTS = [
    cfg.StrOpt(
        "connection",
        secret=True,
        default="sqlite:////var/lib/extend-bridge/journal.sqlite3",
        help="SQLAlchemy URL of the journal: sqlite:////path, postgresql+psycopg://user:password@host/name or "
        "mysql+pymysql://user:password@host/name. SQLite serves one node; its file must be on a local file system.",
    ),
    cfg.BoolOpt(
        "sync_on_startup",
        default=False,
        help="Bring the tables up to date when a process starts. extend-bridge-all-in-one does so in any case; "
        "elsewhere run `extend-bridge-manage db sync` once per upgrade.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalSettings:
    """As [journal]."""

    connection: str
    sync_on_startup: bool = False


def journal_settings(conf: cfg.ConfigOpts) -> JournalSettings:
    """Read [journal]."""
    return JournalSettings(connection=conf.journal.connection, sync_on_startup=conf.journal.sync_on_startup)
