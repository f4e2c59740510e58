# SPDX-License-Identifier: Apache-2.0
"""The journal's tables. Times are seconds since the epoch, sizes bytes. Changed only together with a migration."""

import sqlalchemy as sa

metadata = sa.MetaData()

_ID = sa.String(36)  # UUID, canonical, lower case
_HOST = sa.String(255)
_CODE = sa.String(64)
_REQUEST = sa.String(128)
_SERIAL = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # SQLite counts only INTEGER PRIMARY KEY by itself

extends = sa.Table(
    "extends",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("server_id", _ID, nullable=False),
    sa.Column("volume_id", _ID, nullable=False),
    # 1 while open, NULL after. NULLs do not collide, so the unique key holds one open row per disk on any database.
    sa.Column("open", sa.SmallInteger),
    sa.Column("state", _CODE, nullable=False),
    sa.Column("source", _CODE, nullable=False),
    sa.Column("wanted_gen", sa.Integer, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("due_at", sa.Double, nullable=False),
    sa.Column("claim", _ID),
    sa.Column("waiting_for", _HOST),
    sa.Column("opened_at", sa.Double, nullable=False),
    sa.Column("overdue_at", sa.Double),
    sa.Column("closed_at", sa.Double),
    sa.Column("outcome", _CODE),
    sa.Column("reason", _CODE),
    sa.Column("request_id", _REQUEST),
    sa.Column("global_request_id", _REQUEST),
    sa.Column("traceparent", _CODE),  # W3C; NULL from releases before this column
    sa.UniqueConstraint("server_id", "volume_id", "open", name="uq_extends_open"),
    sa.Index("ix_extends_due", "open", "due_at"),
    sa.Index("ix_extends_claim", "claim"),
    sa.Index("ix_extends_waiting_for", "waiting_for"),
    sa.Index("ix_extends_volume", "volume_id"),
)

attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("extend_id", _ID, nullable=False),
    sa.Column("host", _HOST, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("gen", sa.Integer, nullable=False),
    sa.Column("target", sa.BigInteger, nullable=False),
    sa.Column("sent_at", sa.Double, nullable=False),
    sa.Column("ended_at", sa.Double),
    sa.Column("outcome", _CODE),
    sa.Column("reason", _CODE),
    sa.Column("size_before", sa.BigInteger),
    sa.Column("size_after", sa.BigInteger),
    sa.Index("ix_attempts_extend", "extend_id", "number"),
    sa.Index("ix_attempts_host_pending", "host", "ended_at"),
)

transitions = sa.Table(
    "transitions",
    metadata,
    sa.Column("serial", _SERIAL, primary_key=True, autoincrement=True),
    sa.Column("extend_id", _ID, nullable=False),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("event", _CODE, nullable=False),
    sa.Column("outcome", _CODE),
    sa.Column("reason", _CODE),
    sa.Column("host", _HOST),
    sa.Column("request_id", _REQUEST),
    sa.Column("global_request_id", _REQUEST),
    sa.Index("ix_transitions_extend", "extend_id"),
)

hosts = sa.Table(
    "hosts",
    metadata,
    sa.Column("name", _HOST, primary_key=True),
    sa.Column("boot_id", _ID, nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("last_boot_id", _ID),
    sa.Column("turns", sa.Integer, nullable=False),
    sa.Column("heartbeat_at", sa.Double, nullable=False),
    sa.Column("capabilities", sa.Text, nullable=False),
    # 1: the broker proves the agent's name; NULL from engines before this column
    sa.Column("bound", sa.SmallInteger),
    # time of an inventory that lacked most servers, until another inventory decides
    sa.Column("shrunk_at", sa.Double),
)

domains = sa.Table(
    "domains",
    metadata,
    sa.Column("server_id", _ID, primary_key=True),
    sa.Column("host", _HOST, primary_key=True),
    sa.Column("state", _CODE, nullable=False),
    sa.Column("seen_at", sa.Double, nullable=False),
    sa.Index("ix_domains_host", "host"),
)

disks = sa.Table(
    "disks",
    metadata,
    sa.Column("server_id", _ID, primary_key=True),
    sa.Column("volume_id", _ID, primary_key=True),
    sa.Column("host", _HOST, primary_key=True),
    sa.Column("size", sa.BigInteger),
    sa.Column("told", _CODE),
    sa.Index("ix_disks_host", "host"),
    sa.Index("ix_disks_volume", "volume_id"),
)

file_systems = sa.Table(
    "file_systems",
    metadata,
    sa.Column("server_id", _ID, primary_key=True),
    sa.Column("volume_id", _ID, primary_key=True),
    sa.Column("host", _HOST, nullable=False),
    sa.Column("state", _CODE, nullable=False),
    sa.Column("reason", _CODE, nullable=False),
    sa.Column("layout", _CODE, nullable=False),
    sa.Column("follow", _CODE, nullable=False),
    sa.Column("kind", _CODE, nullable=False),
    sa.Column("mount_point", _HOST, nullable=False),
    sa.Column("disk", sa.BigInteger),
    sa.Column("size", sa.BigInteger),
    sa.Column("asked", sa.SmallInteger, nullable=False),
    sa.Column("since", sa.Double, nullable=False),
    sa.Column("seen_at", sa.Double, nullable=False),
    sa.Index("ix_file_systems_state", "state"),
    sa.Index("ix_file_systems_seen_at", "seen_at"),
)

passes = sa.Table(
    "passes",
    metadata,
    sa.Column("name", _CODE, primary_key=True),
    sa.Column("holder", _ID),
    sa.Column("held_until", sa.Double, nullable=False),
    sa.Column("next_at", sa.Double, nullable=False),
    sa.Column("started_at", sa.Double),
    sa.Column("marker", _ID),
    sa.Column("counts", sa.Text, nullable=False),
    sa.Column("last_ended_at", sa.Double),
    sa.Column("last_counts", sa.Text, nullable=False),
)

sightings = sa.Table(
    "sightings",
    metadata,
    sa.Column("server_id", _ID, primary_key=True),
    sa.Column("volume_id", _ID, primary_key=True),
    sa.Column("sight", _CODE, nullable=False),
    sa.Column("reason", _CODE, nullable=False),
    sa.Column("host", _HOST),
    sa.Column("size", sa.BigInteger),
    sa.Column("wanted", sa.BigInteger, nullable=False),
    sa.Column("since", sa.Double, nullable=False),
    sa.Column("seen_at", sa.Double, nullable=False),
    sa.Index("ix_sightings_volume", "volume_id"),
    sa.Index("ix_sightings_seen_at", "seen_at"),
)

audit_heads = sa.Table(
    "audit_heads",
    metadata,
    sa.Column("writer", sa.String(16), primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("hash", sa.String(32), nullable=False),
    sa.Column("part", _CODE, nullable=False),
    sa.Column("host", _HOST, nullable=False),
    sa.Column("file", _CODE, nullable=False),
    sa.Column("place", sa.BigInteger),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("final", sa.SmallInteger, nullable=False),
    sa.Column("path", sa.String(255)),
    sa.Index("ix_audit_heads_at", "at"),
)
