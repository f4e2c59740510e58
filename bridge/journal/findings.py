# SPDX-License-Identifier: Apache-2.0
"""Findings of reconciliation: each attached volume that is not fine, since when, and why.

Only changes are written. A healthy fleet has no rows, and unchanged rows cost one statement a page.

For the comparison this module also reads the hosts' reports and the extends of some volumes.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa

from bridge.core.extend import Bytes, ExtendKey
from bridge.core.inventory import GuestState
from bridge.core.outcome import Outcome
from bridge.journal.database import Database
from bridge.journal.hosts import Alive
from bridge.journal.inventory import GONE
from bridge.journal.tables import attempts, disks, domains, extends, hosts, sightings

_FAILED = (Outcome.UNSUPPORTED.value, Outcome.REFUSED.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedDisk:
    """One disk as one host reports it. `size` as the guest sees it, None if libvirt does not report it."""

    host: str
    state: GuestState
    size: Bytes | None
    alive: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The largest target of a disk's failed extends, and the reason."""

    target: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalFacts:
    """The journal's facts about the disks of some volumes.

    `open`: why an extend that is on its way has not ended, if it was put off. `verified`: the largest size a report
    read back since the host's last inventory. `agents`: the requested hosts that ever reported, and whether they
    are alive.
    """

    seen: Mapping[ExtendKey, list[ReportedDisk]]
    open: Mapping[ExtendKey, str | None]
    verified: Mapping[tuple[ExtendKey, str], int]
    failed: Mapping[ExtendKey, Failed]
    agents: Mapping[str, bool] = field(default_factory=dict)


def known(database: Database, volume_ids: Collection[str], alive: Alive) -> JournalFacts:
    """Read all facts except `agents`, in one transaction. Raises JournalUnavailableError."""
    return database.read(lambda connection: _known(connection, sorted(volume_ids), alive))


def agents_of(database: Database, names: Collection[str], alive: Alive) -> Mapping[str, bool]:
    """Return the hosts that ever reported, and whether they are alive. Raises JournalUnavailableError."""
    query = sa.select(hosts.c.name, hosts.c.heartbeat_at).where(hosts.c.name.in_(sorted(names)))
    return database.read(lambda c: {name: heartbeat_at in alive for name, heartbeat_at in c.execute(query)})


def these(ids: Collection[str]) -> sa.BindParameter[Any]:
    """Return a parameter whose ids become text of the statement; each id is a checked UUID.

    Drivers take hundreds of parameters one by one, so a list of parameters costs more than the answer.
    """
    return sa.bindparam("ids", ids, expanding=True, literal_execute=True, type_=disks.c.volume_id.type)


def _known(connection: sa.Connection, ids: Collection[str], alive: Alive) -> JournalFacts:
    seen: dict[ExtendKey, list[ReportedDisk]] = {}
    for server_id, volume_id, host, size, state, heartbeat_at in connection.execute(
        sa.select(
            disks.c.server_id, disks.c.volume_id, disks.c.host, disks.c.size, domains.c.state, hosts.c.heartbeat_at
        )
        .join(domains, sa.and_(domains.c.server_id == disks.c.server_id, domains.c.host == disks.c.host))
        .join(hosts, hosts.c.name == disks.c.host)
        .where(disks.c.volume_id.in_(these(ids)), domains.c.state != GONE)
    ):
        seen.setdefault(ExtendKey(server_id, volume_id), []).append(
            ReportedDisk(host=host, state=GuestState(state), size=size, alive=heartbeat_at in alive)
        )
    opened: dict[ExtendKey, str | None] = {}
    touched, given_up = set(), set()
    for server_id, volume_id, is_open, outcome, reason in connection.execute(
        sa.select(
            extends.c.server_id, extends.c.volume_id, extends.c.open, extends.c.outcome, extends.c.reason
        ).where(extends.c.volume_id.in_(these(ids)))
    ):
        touched.add(volume_id)
        if is_open:
            opened[ExtendKey(server_id, volume_id)] = reason
        elif outcome in _FAILED:
            given_up.add(volume_id)
    return JournalFacts(
        seen=seen,
        open=opened,
        verified=_verified(connection, touched) if touched else {},
        failed=_failed(connection, given_up) if given_up else {},
    )


def _verified(connection: sa.Connection, ids: Collection[str]) -> Mapping[tuple[ExtendKey, str], int]:
    rows = connection.execute(
        sa.select(extends.c.server_id, extends.c.volume_id, attempts.c.host, sa.func.max(attempts.c.size_after))
        .join(attempts, attempts.c.extend_id == extends.c.id)
        .join(domains, sa.and_(domains.c.server_id == extends.c.server_id, domains.c.host == attempts.c.host))
        .where(extends.c.volume_id.in_(these(ids)), attempts.c.ended_at >= domains.c.seen_at)
        .group_by(extends.c.server_id, extends.c.volume_id, attempts.c.host)
    )
    return {(ExtendKey(s, v), host): size for s, v, host, size in rows if size is not None}


def _failed(connection: sa.Connection, ids: Collection[str]) -> Mapping[ExtendKey, Failed]:
    rows = connection.execute(
        sa.select(extends.c.server_id, extends.c.volume_id, attempts.c.target, extends.c.reason)
        .join(attempts, attempts.c.extend_id == extends.c.id)
        .where(extends.c.volume_id.in_(these(ids)), extends.c.open.is_(None), extends.c.outcome.in_(_FAILED))
        .order_by(attempts.c.target)
    )
    return {ExtendKey(s, v): Failed(target=target, reason=reason or "") for s, v, target, reason in rows}


class FindingState(StrEnum):
    """The finding about one attached volume."""

    FINE = "fine"  # the guest has the size, or is off and has it when it starts
    BEHIND = "behind"  # the guest sees less than the volume has
    OPEN = "open"  # the guest is behind, and an extend is on its way
    FAILED = "failed"  # the guest is behind, and an extend to this size failed: a person has to look
    CANNOT_SEE = "cannot_see"  # no living host reports the disk, or libvirt does not report its size
    BUSY = "busy"  # on its way between two hosts: looked at in the next sweep


_BEHIND: Final = frozenset({FindingState.BEHIND, FindingState.OPEN, FindingState.FAILED})
_IS: Final[sa.ColumnElement[bool]] = sa.and_(
    sightings.c.server_id == sa.bindparam("b_server"), sightings.c.volume_id == sa.bindparam("b_volume")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One disk: `reason` is a code, sizes are bytes, `size` is None if the guest's size is unknown.

    `since` is the start of the state, if known; else the first look that found the state.
    """

    key: ExtendKey
    sight: FindingState
    reason: str
    host: str | None
    size: int | None
    wanted: int
    since: float | None = None


class Findings:
    """The rows of findings, written by the engine that holds the lease. Methods raise JournalUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._any = True

    def begin(self) -> None:
        """Begin or continue a sweep; without any finding, volumes that are fine need no lookup."""
        one = sa.select(sightings.c.volume_id).limit(1)
        self._any = self._database.read(lambda connection: connection.execute(one).first()) is not None

    def note(self, volume_ids: Collection[str], seen: Sequence[Finding], *, at: float) -> None:
        """Write the findings `seen` about these volumes. A finding that stays the same keeps its `since`."""
        if not seen and not self._any:
            return
        self._any = True
        ids = sorted(volume_ids)
        before = self._database.read(lambda connection: _rows(connection, ids))
        if before or seen:
            self._database.write(lambda connection: _note(connection, before, seen, at))

    def forget(self, *, before: float) -> None:
        """Delete findings that no sweep has seen since: detached, deleted, or on their way to another state."""
        self._database.write(lambda c: c.execute(sa.delete(sightings).where(sightings.c.seen_at < before)))


def _rows(connection: sa.Connection, ids: Collection[str]) -> Mapping[ExtendKey, Any]:
    rows = connection.execute(sa.select(sightings).where(sightings.c.volume_id.in_(these(ids))))
    return {ExtendKey(row.server_id, row.volume_id): row for row in rows}


def _note(connection: sa.Connection, before: Mapping[ExtendKey, Any], seen: Sequence[Finding], at: float) -> None:
    now = {sighting.key: sighting for sighting in seen}
    gone = [{"b_server": key.server_id, "b_volume": key.volume_id} for key in before if key not in now]
    new = [
        _values(s, since=at if s.since is None else s.since, at=at) for key, s in now.items() if key not in before
    ]
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


def _same(row: Any, sighting: Finding) -> bool:
    return (row.sight, row.reason, row.host, row.size, row.wanted) == (
        sighting.sight, sighting.reason, sighting.host, sighting.size, sighting.wanted,
    )  # fmt: skip


def _since(row: Any, sighting: Finding, at: float) -> float:
    """Keep the time of the first finding, even if an extend is opened or fails meanwhile."""
    was = FindingState(row.sight)
    if sighting.since is not None:
        return sighting.since
    return float(row.since) if was is sighting.sight or {was, sighting.sight} <= _BEHIND else at


def _values(sighting: Finding, *, since: float, at: float) -> dict[str, Any]:
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
