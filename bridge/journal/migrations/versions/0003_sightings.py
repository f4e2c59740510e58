# SPDX-License-Identifier: Apache-2.0
"""The findings of reconciliation, and the indexes for its lookups of volumes. Only adds."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Upgrade the tables from 0002."""
    op.create_table(
        "sightings",
        sa.Column("server_id", sa.String(36), primary_key=True),
        sa.Column("volume_id", sa.String(36), primary_key=True),
        sa.Column("sight", sa.String(64), nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("host", sa.String(255)),
        sa.Column("size", sa.BigInteger),
        sa.Column("wanted", sa.BigInteger, nullable=False),
        sa.Column("since", sa.Double, nullable=False),
        sa.Column("seen_at", sa.Double, nullable=False),
    )
    op.create_index("ix_sightings_volume", "sightings", ["volume_id"])
    op.create_index("ix_sightings_seen_at", "sightings", ["seen_at"])
    op.create_index("ix_disks_volume", "disks", ["volume_id"])
    op.create_index("ix_extends_volume", "extends", ["volume_id"])


def downgrade() -> None:
    """Go back to 0002; the next sweep finds the same again."""
    op.drop_index("ix_extends_volume", "extends")
    op.drop_index("ix_disks_volume", "disks")
    op.drop_table("sightings")
