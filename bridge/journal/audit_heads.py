# SPDX-License-Identifier: Apache-2.0
"""Heads of the audit log's chains, kept in the journal because an editor of the log cannot change them there."""

import threading
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from bridge.core.audit import ChainHead
from bridge.journal.database import Database
from bridge.journal.tables import audit_heads

_PATH_MOST: Final = 255
ROW_EVERY: Final = 60.0  # seconds of a writer in one row, which moves along with the newest line


class _KeptRow(NamedTuple):
    seq: int
    file: str
    begun: float


class AuditHeads:
    """Heads of all writers; the engine deletes them after [journal] keep_audit_heads_days.

    A writer's row moves to its newest line for a minute, then a new row begins. The row of a file that was rotated
    stays. So a head each second costs one row each minute.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows: dict[str, _KeptRow] = {}
        self._lock = threading.Lock()

    def keep(self, head: ChainHead) -> None:
        """Store the newest head of a writer. Raises JournalUnavailableError."""
        with self._lock:
            row = self._rows.pop(head.writer, None)  # comes back only after a commit
            if row is not None and head.file == row.file and head.at - row.begun < ROW_EVERY:
                moves: int | None = row.seq
            else:
                moves, row = None, _KeptRow(head.seq, head.file, head.at)
            self._database.write(lambda connection: _store(connection, head, moves))
            self._rows[head.writer] = row._replace(seq=head.seq)

    def all(self) -> list[ChainHead]:
        """Return every head. Raises JournalUnavailableError."""

        def work(connection: sa.Connection) -> list[ChainHead]:
            return [
                ChainHead(
                    writer=row.writer, seq=row.seq, hash=row.hash, part=row.part, host=row.host, file=row.file,
                    at=row.at, offset=row.place, final=bool(row.final), path=row.path or "",
                )
                for row in connection.execute(sa.select(audit_heads))
            ]  # fmt: skip

        return self._database.read(work)


def _store(connection: sa.Connection, head: ChainHead, moves: int | None) -> None:
    """Move the writer's row of number `moves` to this head, or insert a row."""
    values: dict[str, Any] = {
        "writer": head.writer, "seq": head.seq, "hash": head.hash, "part": head.part, "host": head.host,
        "file": head.file, "place": head.offset, "at": head.at, "final": int(head.final),
        "path": head.path[-_PATH_MOST:],
    }  # fmt: skip
    if moves is not None and connection.execute(_change(head.writer, moves, values)).rowcount:
        return
    kept = connection.scalar(sa.select(audit_heads.c.final).where(_row(head.writer, head.seq)))
    if kept is None:
        connection.execute(sa.insert(audit_heads).values(values))
    elif head.final:
        connection.execute(_change(head.writer, head.seq, values))


def _row(writer: str, seq: int) -> sa.ColumnElement[bool]:
    return sa.and_(audit_heads.c.writer == writer, audit_heads.c.seq == seq)


def _change(writer: str, seq: int, values: dict[str, Any]) -> sa.Update:
    return sa.update(audit_heads).where(_row(writer, seq)).values(values)
