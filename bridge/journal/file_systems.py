# SPDX-License-Identifier: Apache-2.0
"""File systems on volumes inside guests: written from hosts' messages, read for operators.

A host speaks only for the servers that it reports itself. A row is replaced by the next look at its volume.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from bridge.core.extend import Bytes, ExtendKey
from bridge.core.file_systems import FileSystemSeen, Follow, FsLayout, FsState
from bridge.journal.database import Database
from bridge.journal.inventory import GONE
from bridge.journal.tables import disks, domains, file_systems

BEHIND: Final = (FsState.BEHIND.value, FsState.REFUSED.value, FsState.FAILED.value)
"""States of a file system that leaves room of its disk unused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSystemRow:
    """The file system on a volume as the journal has it. `since`: when it came into this state."""

    seen: FileSystemSeen
    host: str
    since: float
    seen_at: float


def write_file_systems(
    connection: sa.Connection, host: str, seen: Sequence[FileSystemSeen], now: float
) -> list[FileSystemSeen]:
    """Write the file systems of one message; return those that changed, or that were worked on."""
    if not sa.inspect(connection).has_table(file_systems.name):
        return []  # tables of the release before
    newest = {each.key: each for each in seen}
    servers = sorted({key.server_id for key in newest})
    here = set(
        connection.scalars(
            sa.select(domains.c.server_id).where(
                domains.c.host == host, domains.c.server_id.in_(servers), domains.c.state != GONE
            )
        )
    )
    known = {
        ExtendKey(row.server_id, row.volume_id): row
        for row in connection.execute(sa.select(file_systems).where(file_systems.c.server_id.in_(servers)))
    }
    changed = []
    for key, each in sorted(newest.items(), key=lambda item: (item[0].server_id, item[0].volume_id)):
        if key.server_id not in here:
            continue
        row = known.get(key)
        values = _values(each, host)
        same_state = row is not None and row.state == each.state.value
        values |= {"seen_at": now, "since": row.since if row is not None and same_state else now}
        mine = sa.and_(file_systems.c.server_id == key.server_id, file_systems.c.volume_id == key.volume_id)
        if row is None:
            ids = {"server_id": key.server_id, "volume_id": key.volume_id}
            connection.execute(sa.insert(file_systems).values(**ids, **values))
        else:
            connection.execute(sa.update(file_systems).where(mine).values(**values))
        if each.steps or row is None or any(getattr(row, name) != values[name] for name in _TELLING):
            changed.append(each)
    return changed


_TELLING: Final = ("state", "reason", "layout", "kind", "disk", "size")
"""Columns whose change is news for the audit log."""


def _values(seen: FileSystemSeen, host: str) -> dict[str, Any]:
    return {
        "host": host,
        "state": seen.state.value,
        "reason": seen.reason,
        "layout": seen.layout.value,
        "follow": seen.follow.value,
        "kind": seen.kind,
        "mount_point": seen.mount_point,
        "disk": seen.disk,
        "size": seen.size,
        "asked": int(seen.asked),
    }


class FileSystems:
    """Reads of file systems; each method raises JournalUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def counts(self) -> Mapping[str, int]:
        """Return the number of volumes by the state of their file systems."""
        query = sa.select(file_systems.c.state, sa.func.count()).where(_attached()).group_by(file_systems.c.state)
        return self._database.read(lambda c: {row[0]: row[1] for row in c.execute(query)} if _is_there(c) else {})

    def behind(self, *, limit: int) -> list[FileSystemRow]:
        """Return the volumes whose file systems leave room unused, the longest first."""
        query = (
            sa.select(file_systems)
            .where(file_systems.c.state.in_(BEHIND), _attached())
            .order_by(file_systems.c.since)
            .limit(limit)
        )
        return self._database.read(lambda c: [_row(row) for row in c.execute(query)] if _is_there(c) else [])


def delete_old(connection: sa.Connection, before: float, most: int) -> int:
    """Delete rows that no host has renewed for long; return their number."""
    if not _is_there(connection):
        return 0
    old = sa.select(file_systems.c.seen_at).where(file_systems.c.seen_at < before)
    found = list(connection.scalars(old.order_by(file_systems.c.seen_at).limit(most)))
    if not found:
        return 0
    return int(connection.execute(sa.delete(file_systems).where(file_systems.c.seen_at <= found[-1])).rowcount)


def _is_there(connection: sa.Connection) -> bool:
    """Return whether the table is there: it is missing in tables of the release before."""
    return sa.inspect(connection).has_table(file_systems.name)


def _attached() -> sa.Exists:
    """Match volumes that a host still reports at their server."""
    return sa.exists().where(
        disks.c.server_id == file_systems.c.server_id, disks.c.volume_id == file_systems.c.volume_id
    )


def _row(row: Any) -> FileSystemRow:
    seen = FileSystemSeen(
        key=ExtendKey(row.server_id, row.volume_id),
        state=FsState(row.state),
        reason=row.reason,
        layout=FsLayout(row.layout),
        follow=Follow(row.follow),
        kind=row.kind,
        mount_point=row.mount_point,
        disk=Bytes(row.disk) if row.disk is not None else None,
        size=Bytes(row.size) if row.size is not None else None,
        asked=bool(row.asked),
    )
    return FileSystemRow(seen=seen, host=row.host, since=row.since, seen_at=row.seen_at)
