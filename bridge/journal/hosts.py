# SPDX-License-Identifier: Apache-2.0
"""What the hosts say they have: liveness, domains, disks. Written from their messages, read to locate a server."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from bridge.core.messages import DomainSeen, GuestState, HostMessage, Inventory
from bridge.journal.tables import disks, domains, hosts

GONE: Final = "gone"
"""State of a domain its host no longer reports: the server stays known, on no host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """A host that reports the server, and whether that host is alive."""

    host: str
    state: GuestState
    fresh: bool


def locate(
    connection: sa.Connection, server_ids: Collection[str], *, alive_since: float
) -> Mapping[str, list[Location]]:
    """Where each server is. `alive_since` (epoch seconds): a host heard from later counts as alive."""
    rows = connection.execute(
        sa.select(domains.c.server_id, domains.c.host, domains.c.state, hosts.c.heartbeat_at)
        .join(hosts, hosts.c.name == domains.c.host)
        .where(domains.c.server_id.in_(set(server_ids)), domains.c.state != GONE)
    )
    found: dict[str, list[Location]] = {}
    for server_id, host, state, heartbeat_at in rows:
        found.setdefault(server_id, []).append(
            Location(host=host, state=GuestState(state), fresh=heartbeat_at >= alive_since)
        )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What one message of a host meant for its liveness."""

    host: str
    came_up: bool  # first heard, heard again after a silence, or restarted: what waits for it may go
    restarted: bool  # a new run of the agent: what its last run had in hand is lost


def hear(connection: sa.Connection, message: HostMessage, *, now: float, alive_since: float) -> Heard:
    """Take liveness and inventory from one message.

    Within a run, an inventory older than the newest is left out: messages may come again, and out of order.
    """
    row = connection.execute(
        sa.select(hosts.c.boot_id, hosts.c.seq, hosts.c.heartbeat_at, hosts.c.capabilities)
        .where(hosts.c.name == message.host)
        .with_for_update()
    ).one_or_none()
    same_run = row is not None and row.boot_id == message.boot_id
    newer = not same_run or row is None or message.seq > row.seq
    capabilities = row.capabilities if row is not None else "[]"
    if newer and message.inventory is not None and message.inventory.capabilities:
        capabilities = json.dumps(message.inventory.capabilities)
    values = {
        "boot_id": message.boot_id,
        "seq": message.seq if newer or row is None else row.seq,
        "heartbeat_at": now,
        "capabilities": capabilities,
    }
    if row is None:
        connection.execute(sa.insert(hosts).values(name=message.host, **values))
    else:
        connection.execute(sa.update(hosts).where(hosts.c.name == message.host).values(**values))
    if newer and message.inventory is not None:
        _apply(connection, message.host, message.inventory, now)
    return Heard(
        host=message.host,
        came_up=not same_run or row is None or row.heartbeat_at < alive_since,
        restarted=row is not None and not same_run,
    )


def _apply(connection: sa.Connection, host: str, inventory: Inventory, now: float) -> None:
    seen = {domain.server_id: domain for domain in inventory.domains}
    known = set(connection.scalars(sa.select(domains.c.server_id).where(domains.c.host == host)))
    gone = (known - seen.keys()) if inventory.full else known.intersection(inventory.gone)
    _mark_gone(connection, host, gone, now)
    _write_domains(connection, host, seen, known, now)
    _write_disks(connection, host, list(seen.values()), everything=inventory.full)


def _mark_gone(connection: sa.Connection, host: str, gone: Collection[str], now: float) -> None:
    if gone:
        mine = sa.and_(domains.c.host == host, domains.c.server_id.in_(gone), domains.c.state != GONE)
        connection.execute(sa.update(domains).where(mine).values(state=GONE, seen_at=now))
        connection.execute(sa.delete(disks).where(disks.c.host == host, disks.c.server_id.in_(gone)))


def _write_domains(
    connection: sa.Connection, host: str, seen: Mapping[str, DomainSeen], known: Collection[str], now: float
) -> None:
    old = [d for d in seen.values() if d.server_id in known]
    new = [d for d in seen.values() if d.server_id not in known]
    if old:
        connection.execute(
            sa.update(domains)
            .where(domains.c.host == host, domains.c.server_id == sa.bindparam("b_server"))
            .values(state=sa.bindparam("b_state"), seen_at=now),
            [{"b_server": d.server_id, "b_state": d.state} for d in old],
        )
    if new:
        connection.execute(
            sa.insert(domains),
            [{"server_id": d.server_id, "host": host, "state": d.state, "seen_at": now} for d in new],
        )


def _write_disks(connection: sa.Connection, host: str, seen: Sequence[DomainSeen], *, everything: bool) -> None:
    stale = sa.delete(disks).where(disks.c.host == host)
    if not everything:
        stale = stale.where(disks.c.server_id.in_([d.server_id for d in seen]))
    if everything or seen:
        connection.execute(stale)
    rows = {
        (d.server_id, disk.volume_id): {
            "server_id": d.server_id,
            "volume_id": disk.volume_id,
            "host": host,
            "size": disk.size,
        }
        for d in seen
        for disk in d.disks
    }
    if rows:
        connection.execute(sa.insert(disks), list(rows.values()))
