# SPDX-License-Identifier: Apache-2.0
"""What reconciliation last saw of each attached volume that is not fine: which, since when, why.

Only changes are written: a fleet that is well has no row, and one whose rows stay as they are costs one statement a
page.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa

from bridge.core.extend import ExtendKey
from bridge.journal.database import Database
from bridge.journal.seen import these
from bridge.journal.tables import sightings


class Sight(StrEnum):
    """What is seen of one attached volume."""

    FINE = "fine"  # the guest has the size, or is off and has it when it starts
    BEHIND = "behind"  # the guest sees less than the volume has
    OPEN = "open"  # the guest is behind, and an extend is on its way
    FAILED = "failed"  # the guest is behind, and an extend to this size was given up on: a person has to look
    CANNOT_SEE = "cannot_see"  # no living host reports the disk, or libvirt does not say its size
    BUSY = "busy"  # on its way between two hosts: looked at in the next pass


_BEHIND: Final = frozenset({Sight.BEHIND, Sight.OPEN, Sight.FAILED})
_IS: Final[sa.ColumnElement[bool]] = sa.and_(
    sightings.c.server_id == sa.bindparam("b_server"), sightings.c.volume_id == sa.bindparam("b_volume")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """One disk: `reason` is a code, sizes are bytes, `size` None where the guest's is not known."""

    key: ExtendKey
    sight: Sight
    reason: str
    host: str | None
    size: int | None
    wanted: int


class Sightings:
    """The rows, as the engine that has the turn writes them. Each method raises JournalUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._any = True

    def begin(self) -> None:
        """A pass begins, or goes on: where nothing is written down, what is fine need not be looked for."""
        one = sa.select(sightings.c.volume_id).limit(1)
        self._any = self._database.read(lambda connection: connection.execute(one).first()) is not None

    def note(self, volume_ids: Collection[str], seen: Sequence[Sighting], *, at: float) -> None:
        """These volumes were looked at, and this was not fine. What stays the same keeps its `since`."""
        if not seen and not self._any:
            return
        self._any = True
        ids = sorted(volume_ids)
        before = self._database.read(lambda connection: _rows(connection, ids))
        if before or seen:
            self._database.write(lambda connection: _note(connection, before, seen, at))

    def forget(self, *, before: float) -> None:
        """Drop what no pass has seen since: detached, deleted, or on its way to another state."""
        self._database.write(lambda c: c.execute(sa.delete(sightings).where(sightings.c.seen_at < before)))


def _rows(connection: sa.Connection, ids: Collection[str]) -> Mapping[ExtendKey, Any]:
    rows = connection.execute(sa.select(sightings).where(sightings.c.volume_id.in_(these(ids))))
    return {ExtendKey(row.server_id, row.volume_id): row for row in rows}


def _note(connection: sa.Connection, before: Mapping[ExtendKey, Any], seen: Sequence[Sighting], at: float) -> None:
    now = {sighting.key: sighting for sighting in seen}
    gone = [{"b_server": key.server_id, "b_volume": key.volume_id} for key in before if key not in now]
    new = [_values(s, since=at, at=at) for key, s in now.items() if key not in before]
    changed = [
        {
            "b_server": key.server_id,
            "b_volume": key.volume_id,
            **_values(s, since=_since(before[key], s, at), at=at),
        }
        for key, s in now.items()
        if key in before and not _same(before[key], s)
    ]
    same = [key.volume_id for key, s in now.items() if key in before and _same(before[key], s)]
    if gone:
        connection.execute(sa.delete(sightings).where(_IS), gone)
    if new:
        connection.execute(sa.insert(sightings), new)
    if changed:
        names = ("sight", "reason", "host", "size", "wanted", "since", "seen_at")
        update = sa.update(sightings).where(_IS).values({name: sa.bindparam(name) for name in names})
        keys = ("b_server", "b_volume", *names)
        connection.execute(update, [{name: row[name] for name in keys} for row in changed])
    if same:
        connection.execute(sa.update(sightings).where(sightings.c.volume_id.in_(set(same))).values(seen_at=at))


def _same(row: Any, sighting: Sighting) -> bool:
    return (row.sight, row.reason, row.host, row.size, row.wanted) == (
        sighting.sight, sighting.reason, sighting.host, sighting.size, sighting.wanted,
    )  # fmt: skip


def _since(row: Any, sighting: Sighting, at: float) -> float:
    """A guest is behind from the first sight of it to the last, whatever is done about it meanwhile."""
    was = Sight(row.sight)
    return float(row.since) if was is sighting.sight or {was, sighting.sight} <= _BEHIND else at


def _values(sighting: Sighting, *, since: float, at: float) -> dict[str, Any]:
    return {
        "server_id": sighting.key.server_id,
        "volume_id": sighting.key.volume_id,
        "sight": sighting.sight.value,
        "reason": sighting.reason,
        "host": sighting.host,
        "size": sighting.size,
        "wanted": sighting.wanted,
        "since": since,
        "seen_at": at,
    }
