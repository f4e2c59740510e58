# SPDX-License-Identifier: Apache-2.0
"""Heads of the audit log's chains, kept in the journal because an editor of the log cannot change them there."""

import sqlalchemy as sa

from bridge.core.audit_chain import ChainHead
from bridge.journal.database import Database
from bridge.journal.tables import audit_heads


class AuditHeads:
    """Heads of all writers; the engine deletes them after [journal] keep_audit_heads_days."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def keep(self, head: ChainHead) -> None:
        """Store a head; a second head of one line means that the writer ended. Raises JournalUnavailableError."""
        row = {
            "writer": head.writer, "seq": head.seq, "hash": head.hash, "part": head.part, "host": head.host,
            "file": head.file, "place": head.offset, "at": head.at, "final": int(head.final),
        }  # fmt: skip
        same = sa.and_(audit_heads.c.writer == head.writer, audit_heads.c.seq == head.seq)

        def work(connection: sa.Connection) -> None:
            if connection.scalar(sa.select(audit_heads.c.seq).where(same)) is None:
                connection.execute(sa.insert(audit_heads).values(row))
            elif head.final:
                connection.execute(sa.update(audit_heads).where(same).values(final=1))

        self._database.write(work)

    def all(self) -> list[ChainHead]:
        """Return every head. Raises JournalUnavailableError."""

        def work(connection: sa.Connection) -> list[ChainHead]:
            return [
                ChainHead(
                    writer=row.writer, seq=row.seq, hash=row.hash, part=row.part, host=row.host, file=row.file,
                    at=row.at, offset=row.place, final=bool(row.final),
                )
                for row in connection.execute(sa.select(audit_heads))
            ]  # fmt: skip

        return self._database.read(work)
