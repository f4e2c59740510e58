# SPDX-License-Identifier: Apache-2.0
"""Knowledge of each disk: was its guest told of the size. Only adds."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Upgrade from 0003."""
    op.add_column("disks", sa.Column("told", sa.String(64)))


def downgrade() -> None:
    """Go back to 0003; the next full inventory says it again, all but what only the journal still knew."""
    with op.batch_alter_table("disks") as batch:
        batch.drop_column("told")
