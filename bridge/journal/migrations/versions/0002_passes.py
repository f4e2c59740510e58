# SPDX-License-Identifier: Apache-2.0
"""The lease of the engine's reconcile sweep: holder, position, and result. Only adds."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Upgrade the tables from 0001."""
    op.create_table(
        "passes",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("holder", sa.String(36)),
        sa.Column("held_until", sa.Double, nullable=False),
        sa.Column("next_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double),
        sa.Column("marker", sa.String(36)),
        sa.Column("counts", sa.Text, nullable=False),
        sa.Column("last_ended_at", sa.Double),
        sa.Column("last_counts", sa.Text, nullable=False),
    )


def downgrade() -> None:
    """Go back to 0001; the next sweep begins anew."""
    op.drop_table("passes")
