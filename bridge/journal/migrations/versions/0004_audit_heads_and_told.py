# SPDX-License-Identifier: Apache-2.0
"""Heads of the audit log's chains, what guests know and their file systems, proofs of hosts, traces. Only adds."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Upgrade the tables from 0003."""
    op.create_table(
        "audit_heads",
        sa.Column("writer", sa.String(16), primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("hash", sa.String(32), nullable=False),
        sa.Column("part", sa.String(64), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("file", sa.String(64), nullable=False),
        sa.Column("place", sa.BigInteger),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("final", sa.SmallInteger, nullable=False),
        sa.Column("path", sa.String(255)),
    )
    op.create_index("ix_audit_heads_at", "audit_heads", ["at"])
    op.add_column("disks", sa.Column("told", sa.String(64)))
    op.add_column("hosts", sa.Column("bound", sa.SmallInteger))
    op.add_column("hosts", sa.Column("shrunk_at", sa.Double))
    op.add_column("extends", sa.Column("traceparent", sa.String(64)))
    op.create_table(
        "file_systems",
        sa.Column("server_id", sa.String(36), primary_key=True),
        sa.Column("volume_id", sa.String(36), primary_key=True),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("state", sa.String(64), nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("layout", sa.String(64), nullable=False),
        sa.Column("follow", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("mount_point", sa.String(255), nullable=False),
        sa.Column("disk", sa.BigInteger),
        sa.Column("size", sa.BigInteger),
        sa.Column("asked", sa.SmallInteger, nullable=False),
        sa.Column("since", sa.Double, nullable=False),
        sa.Column("seen_at", sa.Double, nullable=False),
    )
    op.create_index("ix_file_systems_state", "file_systems", ["state"])
    op.create_index("ix_file_systems_seen_at", "file_systems", ["seen_at"])


def downgrade() -> None:
    """Go back to 0003. Logs written meanwhile are proved by their chains alone; hosts report their guests again."""
    op.drop_index("ix_file_systems_seen_at", "file_systems")
    op.drop_index("ix_file_systems_state", "file_systems")
    op.drop_table("file_systems")
    with op.batch_alter_table("extends") as batch:
        batch.drop_column("traceparent")
    with op.batch_alter_table("hosts") as batch:
        batch.drop_column("shrunk_at")
        batch.drop_column("bound")
    with op.batch_alter_table("disks") as batch:
        batch.drop_column("told")
    op.drop_index("ix_audit_heads_at", "audit_heads")
    op.drop_table("audit_heads")
