# SPDX-License-Identifier: Apache-2.0
"""What the hosts say they have: liveness, domains, disks. Written from their messages, read to locate a server."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from bridge.core.messages import DomainSeen, GuestState, HostMessage, Inventory
from bridge.journal.prepared import Prepared
from bridge.journal.tables import disks, domains, hosts

GONE: Final = "gone"
"""State of a domain its host no longer reports: the server stays known, on no host."""
_TURNS: Final = 6
"""Turns two runs took that cannot be late messages any more: what a dead engine had in hand comes again behind the
new run's first messages (seen in chaos), but two living agents go on with every heartbeat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """A host that reports the server, and whether that host is alive."""

    host: str
    state: GuestState
    fresh: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Alive:
    """When a host must have been heard to count as alive (epoch seconds).

    Not after `until`: such a time was written before the clock was set back and says nothing.
    """

    since: float
    until: float

    def __contains__(self, heard_at: float) -> bool:
        return self.since <= heard_at <= self.until


def locate(connection: sa.Connection, server_ids: Collection[str], alive: Alive) -> Mapping[str, list[Location]]:
    """Where each server is, and whether those hosts are alive."""
    rows = connection.execute(
        sa.select(domains.c.server_id, domains.c.host, domains.c.state, hosts.c.heartbeat_at)
        .join(hosts, hosts.c.name == domains.c.host)
        .where(domains.c.server_id.in_(set(server_ids)), domains.c.state != GONE)
    )
    found: dict[str, list[Location]] = {}
    for server_id, host, state, heartbeat_at in rows:
        found.setdefault(server_id, []).append(
            Location(host=host, state=GuestState(state), fresh=heartbeat_at in alive)
        )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What one message of a host meant for its liveness."""

    host: str
    came_up: bool  # first heard, heard again after a silence, or restarted: what waits for it may go
    restarted: bool  # a new run of the agent: what its last run had in hand is lost
    moved_in: tuple[str, ...]  # servers that became active on this host with this message
    duplicate: bool  # two agents take turns under this name


# Every message of every host runs the first; the others only where something is new.
_STILL: Final = Prepared(
    sa.update(hosts)
    .where(
        hosts.c.name == sa.bindparam("b_name"),
        hosts.c.boot_id == sa.bindparam("b_boot"),
        hosts.c.seq < sa.bindparam("b_seq"),
        hosts.c.heartbeat_at.between(sa.bindparam("b_since"), sa.bindparam("b_until")),
    )
    .values(heartbeat_at=sa.bindparam("b_now"), seq=sa.bindparam("b_seq"))
)
_NOTHING_NEW: Final = (None, Inventory(full=False))  # reports alone, and a heartbeat
_HOST: Final = sa.select(hosts).where(hosts.c.name == sa.bindparam("name")).with_for_update()
_HEARD: Final = (
    sa.update(hosts)
    .where(hosts.c.name == sa.bindparam("b_name"))
    .values(
        heartbeat_at=sa.bindparam("b_now"),
        turns=sa.bindparam("b_turns"),
        seq=sa.bindparam("b_seq"),
        boot_id=sa.bindparam("b_boot"),
        last_boot_id=sa.bindparam("b_last_boot"),
        capabilities=sa.bindparam("b_capabilities"),
    )
)


def hear(connection: sa.Connection, message: HostMessage, *, now: float, alive: Alive) -> Heard:
    """Take liveness and inventory from one message.

    Within a run, an inventory older than the newest is left out: messages may come again, and out of order.
    """
    if message.inventory in _NOTHING_NEW and _still_there(connection, message, now, alive):
        return Heard(host=message.host, came_up=False, restarted=False, moved_in=(), duplicate=False)
    row = connection.execute(_HOST, {"name": message.host}).one_or_none()
    inventory = message.inventory
    if row is None:
        connection.execute(
            sa.insert(hosts).values(
                name=message.host,
                boot_id=message.boot_id,
                seq=message.seq,
                turns=0,
                heartbeat_at=now,
                capabilities=json.dumps(inventory.capabilities if inventory is not None else ()),
            )
        )
        moved_in = _apply(connection, message.host, inventory, now) if inventory is not None else ()
        return Heard(host=message.host, came_up=True, restarted=False, moved_in=moved_in, duplicate=False)
    same_run = row.boot_id == message.boot_id
    newer = not same_run or message.seq > row.seq
    turns = row.turns if same_run else _turns(row, message)
    moved_in = _apply(connection, message.host, inventory, now) if newer and inventory is not None else ()
    told = inventory is not None and newer and bool(inventory.capabilities)
    connection.execute(
        _HEARD,
        {
            "b_name": message.host,
            "b_now": now,
            "b_turns": turns,
            "b_seq": message.seq if newer else row.seq,
            "b_boot": message.boot_id,
            "b_last_boot": row.last_boot_id if same_run else row.boot_id,
            "b_capabilities": json.dumps(inventory.capabilities) if told and inventory else row.capabilities,
        },
    )
    return Heard(
        host=message.host,
        came_up=not same_run or row.heartbeat_at not in alive,
        restarted=not same_run,
        moved_in=moved_in,
        duplicate=turns >= _TURNS and not same_run,
    )


def _still_there(connection: sa.Connection, message: HostMessage, now: float, alive: Alive) -> bool:
    """Note a message of a run that is known and alive, newer than its last: the ordinary case, in one statement."""
    noted = _STILL.run(
        connection,
        {
            "b_name": message.host,
            "b_boot": message.boot_id,
            "b_seq": message.seq,
            "b_now": now,
            "b_since": alive.since,
            "b_until": alive.until,
        },
    )
    return noted.rowcount == 1


def _turns(row: sa.Row[Any], message: HostMessage) -> int:
    """How often the run before the last came back. A message delivered late can do that once, two agents do it on
    and on."""
    return row.turns + 1 if row.last_boot_id == message.boot_id else 0


def _apply(connection: sa.Connection, host: str, inventory: Inventory, now: float) -> tuple[str, ...]:
    """Write an inventory; the servers that are active here and were not."""
    seen = {domain.server_id: domain for domain in inventory.domains}
    states = connection.execute(sa.select(domains.c.server_id, domains.c.state).where(domains.c.host == host))
    was = {row.server_id: row.state for row in states}
    known = was.keys()
    gone = (known - seen.keys()) if inventory.full else known & set(inventory.gone)
    _mark_gone(connection, host, gone, now)
    _write_domains(connection, host, seen, known, now)
    _write_disks(connection, host, list(seen.values()), everything=inventory.full)
    active = GuestState.ACTIVE
    return tuple(d.server_id for d in seen.values() if d.state is active and was.get(d.server_id) != active)


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
