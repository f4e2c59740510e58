# SPDX-License-Identifier: Apache-2.0
"""What the hosts say of the disks of some volumes, and what is being done about them: for reconciliation."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from bridge.core.extend import Bytes, ExtendKey
from bridge.core.messages import GuestState
from bridge.core.outcome import Outcome
from bridge.journal.database import Database
from bridge.journal.hosts import GONE, Alive
from bridge.journal.tables import attempts, disks, domains, extends, hosts

_FAILED = (Outcome.UNSUPPORTED.value, Outcome.REFUSED.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One disk as one host reports it. `size` as the guest sees it, None where libvirt does not say."""

    host: str
    state: GuestState
    size: Bytes | None
    alive: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The largest target an extend of a disk was given up on for, and why."""

    target: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the journal knows of the disks of some volumes.

    `open`: why an extend that is on its way has not ended, where it was put off. `verified`: the largest size a
    report read back since the host's last inventory. `agents`: the hosts asked for that ever reported, and whether
    they are alive.
    """

    seen: Mapping[ExtendKey, list[Seen]]
    open: Mapping[ExtendKey, str | None]
    verified: Mapping[ExtendKey, int]
    failed: Mapping[ExtendKey, Failed]
    agents: Mapping[str, bool] = field(default_factory=dict)


def known(database: Database, volume_ids: Collection[str], alive: Alive) -> Known:
    """Read it in one transaction, all but `agents`. Raises JournalUnavailableError."""
    return database.read(lambda connection: _known(connection, sorted(volume_ids), alive))


def agents_of(database: Database, names: Collection[str], alive: Alive) -> Mapping[str, bool]:
    """Which of these hosts ever reported, and whether they are alive. Raises JournalUnavailableError."""
    query = sa.select(hosts.c.name, hosts.c.heartbeat_at).where(hosts.c.name.in_(sorted(names)))
    return database.read(lambda c: {name: heartbeat_at in alive for name, heartbeat_at in c.execute(query)})


def these(ids: Collection[str]) -> sa.BindParameter[Any]:
    """Ids as text in the statement. They are UUIDs, all of them checked, and drivers take parameters by the hundred
    one by one: with them the list costs more than the answer."""
    return sa.bindparam("ids", ids, expanding=True, literal_execute=True, type_=disks.c.volume_id.type)


def _known(connection: sa.Connection, ids: Collection[str], alive: Alive) -> Known:
    seen: dict[ExtendKey, list[Seen]] = {}
    for server_id, volume_id, host, size, state, heartbeat_at in connection.execute(
        sa.select(
            disks.c.server_id, disks.c.volume_id, disks.c.host, disks.c.size, domains.c.state, hosts.c.heartbeat_at
        )
        .join(domains, sa.and_(domains.c.server_id == disks.c.server_id, domains.c.host == disks.c.host))
        .join(hosts, hosts.c.name == disks.c.host)
        .where(disks.c.volume_id.in_(these(ids)), domains.c.state != GONE)
    ):
        seen.setdefault(ExtendKey(server_id, volume_id), []).append(
            Seen(host=host, state=GuestState(state), size=size, alive=heartbeat_at in alive)
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
    return Known(
        seen=seen,
        open=opened,
        verified=_verified(connection, touched) if touched else {},
        failed=_failed(connection, given_up) if given_up else {},
    )


def _verified(connection: sa.Connection, ids: Collection[str]) -> Mapping[ExtendKey, int]:
    rows = connection.execute(
        sa.select(extends.c.server_id, extends.c.volume_id, sa.func.max(attempts.c.size_after))
        .join(attempts, attempts.c.extend_id == extends.c.id)
        .join(domains, sa.and_(domains.c.server_id == extends.c.server_id, domains.c.host == attempts.c.host))
        .where(extends.c.volume_id.in_(these(ids)), attempts.c.ended_at >= domains.c.seen_at)
        .group_by(extends.c.server_id, extends.c.volume_id)
    )
    return {ExtendKey(s, v): size for s, v, size in rows if size is not None}


def _failed(connection: sa.Connection, ids: Collection[str]) -> Mapping[ExtendKey, Failed]:
    rows = connection.execute(
        sa.select(extends.c.server_id, extends.c.volume_id, attempts.c.target, extends.c.reason)
        .join(attempts, attempts.c.extend_id == extends.c.id)
        .where(extends.c.volume_id.in_(these(ids)), extends.c.open.is_(None), extends.c.outcome.in_(_FAILED))
        .order_by(attempts.c.target)
    )
    return {ExtendKey(s, v): Failed(target=target, reason=reason or "") for s, v, target, reason in rows}
