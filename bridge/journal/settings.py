# SPDX-License-Identifier: Apache-2.0
"""Options of the section [journal]."""

from dataclasses import dataclass

from oslo_config import cfg

from bridge.runtime.config import section

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
        help="Upgrade the tables when a process starts. extend-bridge-all-in-one always does so; elsewhere run "
        "`extend-bridge-manage db sync` once per upgrade.",
    ),
    cfg.IntOpt(
        "max_open",
        default=100_000,
        min=1,
        help="Open extends above which the API answers 503 with Retry-After. The listener then leaves its messages "
        "on the bus.",
    ),
    cfg.FloatOpt("keep_closed_days", default=30, min=0, help="Days to keep closed extends and their history."),
    cfg.FloatOpt(
        "keep_gone_days",
        default=7,
        min=0.1,
        help="Days to keep servers that no host reports any more, and hosts that are silent. Until then the API "
        "answers events of such a server with 422, afterwards with 404.",
    ),
    cfg.FloatOpt(
        "keep_audit_heads_days",
        default=120,
        min=1,
        help="Days to keep the hashes by which `extend-bridge audit verify` checks the audit log. Keep them longer "
        "than the log itself.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """Days to keep closed extends with their history, servers and hosts that are not reported, and audit heads."""

    closed_days: float = 30
    gone_days: float = 7
    audit_heads_days: float = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalSettings:
    """The options of [journal]."""

    connection: str
    sync_on_startup: bool = False
    max_open: int = 100_000
    keep: Keep = Keep()


def journal_settings(conf: cfg.ConfigOpts) -> JournalSettings:
    """Read the options of [journal]."""
    return section(conf, "journal", JournalSettings, keep=section(conf, "journal", Keep, prefix="keep_"))
