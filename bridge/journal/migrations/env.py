# SPDX-License-Identifier: Apache-2.0
"""The entry of alembic: runs on the connection that bridge.journal.migrate hands over."""

from alembic import context

from bridge.journal.tables import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True
)
context.run_migrations()
