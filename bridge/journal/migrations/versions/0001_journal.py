# SPDX-License-Identifier: Apache-2.0
"""The journal's first tables, written out instead of taken from the live metadata, because a migration never
changes.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_ID = sa.String(36)
_HOST = sa.String(255)
_CODE = sa.String(64)
_REQUEST = sa.String(128)


def upgrade() -> None:
    """Create the first tables in an empty database."""
    op.create_table(
        "extends",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("server_id", _ID, nullable=False),
        sa.Column("volume_id", _ID, nullable=False),
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
        sa.UniqueConstraint("server_id", "volume_id", "open", name="uq_extends_open"),
    )
    op.create_index("ix_extends_due", "extends", ["open", "due_at"])
    op.create_index("ix_extends_claim", "extends", ["claim"])
    op.create_index("ix_extends_waiting_for", "extends", ["waiting_for"])
    op.create_table(
        "attempts",
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
    )
    op.create_index("ix_attempts_extend", "attempts", ["extend_id", "number"])
    op.create_index("ix_attempts_host_pending", "attempts", ["host", "ended_at"])
    op.create_table(
        "transitions",
        sa.Column(
            "serial", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True
        ),
        sa.Column("extend_id", _ID, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("event", _CODE, nullable=False),
        sa.Column("outcome", _CODE),
        sa.Column("reason", _CODE),
        sa.Column("host", _HOST),
        sa.Column("request_id", _REQUEST),
        sa.Column("global_request_id", _REQUEST),
    )
    op.create_index("ix_transitions_extend", "transitions", ["extend_id"])
    op.create_table(
        "hosts",
        sa.Column("name", _HOST, primary_key=True),
        sa.Column("boot_id", _ID, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("last_boot_id", _ID),
        sa.Column("turns", sa.Integer, nullable=False),
        sa.Column("heartbeat_at", sa.Double, nullable=False),
        sa.Column("capabilities", sa.Text, nullable=False),
    )
    op.create_table(
        "domains",
        sa.Column("server_id", _ID, primary_key=True),
        sa.Column("host", _HOST, primary_key=True),
        sa.Column("state", _CODE, nullable=False),
        sa.Column("seen_at", sa.Double, nullable=False),
    )
    op.create_index("ix_domains_host", "domains", ["host"])
    op.create_table(
        "disks",
        sa.Column("server_id", _ID, primary_key=True),
        sa.Column("volume_id", _ID, primary_key=True),
        sa.Column("host", _HOST, primary_key=True),
        sa.Column("size", sa.BigInteger),
    )
    op.create_index("ix_disks_host", "disks", ["host"])
