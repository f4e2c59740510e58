# SPDX-License-Identifier: Apache-2.0
"""Liveness, domains and disks of hosts: written from their messages, read to locate a server."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from bridge.core.messages import DiskSeen, DomainSeen, GuestState, HostMessage, Inventory
from bridge.core.outcome import Told
from bridge.journal.database import Prepared
from bridge.journal.tables import disks, domains, hosts

_MANY: Final = 10  # servers that one inventory lacks; with fewer the inventory is believed
_CONFIRMED: Final = 30.0  # seconds within which another agent of the same name would be heard
GONE: Final = "gone"
"""State of a domain its host no longer reports: the server stays known, on no host."""
_TURNS: Final = 6
"""Turns of two runs under one name, from which on late messages cannot be the cause.

A dead engine's messages come again after the new run's first messages (seen in chaos). Two living agents go on with
every heartbeat.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """A host that reports the server, and whether that host is alive."""

    host: str
    state: GuestState
    fresh: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Alive:
    """The times at which a host must have been heard to count as alive (epoch seconds).

    A time after `until` was written before the clock was set back, and proves nothing.
    """

    since: float
    until: float

    def __contains__(self, heard_at: float) -> bool:
        return self.since <= heard_at <= self.until


def locate(connection: sa.Connection, server_ids: Collection[str], alive: Alive) -> Mapping[str, list[Location]]:
    """Return the hosts of each server, and whether they are alive."""
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


def disputed(connection: sa.Connection, alive: Alive, *, limit: int) -> Mapping[str, list[str]]:
    """Return the servers that several living hosts claim to run, with these hosts."""
    running = (
        sa.select(domains.c.server_id, domains.c.host)
        .join(hosts, hosts.c.name == domains.c.host)
        .where(domains.c.state == GuestState.ACTIVE.value, hosts.c.heartbeat_at.between(alive.since, alive.until))
    )
    each = running.subquery()
    several = sa.select(each.c.server_id).group_by(each.c.server_id).having(sa.func.count() > 1).limit(limit)
    servers = list(connection.scalars(several))
    claims: dict[str, list[str]] = {}
    if servers:
        for server_id, host in connection.execute(running.where(domains.c.server_id.in_(servers))):
            claims.setdefault(server_id, []).append(host)
    return claims


@dataclass(frozen=True, slots=True, kw_only=True)
class HostUpdate:
    """The effect of one host message on the host's liveness."""

    host: str
    came_up: bool  # first heard, heard again after a silence, or restarted: waiting extends may go
    restarted: bool  # a new run of the agent: the orders of its last run are lost
    moved_in: tuple[str, ...]  # servers that became active on this host with this message
    duplicate: bool  # two agents take turns under this name
    refused: bool = False  # the broker proves the living agent's name, but not this sender's
    lost: int = 0  # missing servers, so many at once that a second inventory has to confirm them


# Every message of every host runs the first statement; the others only run for news.
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
_HOST: Final = Prepared(sa.select(hosts).where(hosts.c.name == sa.bindparam("name")).with_for_update())
_HEARD: Final = Prepared(
    sa.update(hosts)
    .where(hosts.c.name == sa.bindparam("b_name"))
    .values(
        heartbeat_at=sa.bindparam("b_now"),
        turns=sa.bindparam("b_turns"),
        seq=sa.bindparam("b_seq"),
        boot_id=sa.bindparam("b_boot"),
        last_boot_id=sa.bindparam("b_last_boot"),
        capabilities=sa.bindparam("b_capabilities"),
        bound=sa.bindparam("b_bound"),
        shrunk_at=sa.bindparam("b_shrunk_at", type_=hosts.c.shrunk_at.type),
    )
)


_HAS: Final = Prepared(
    sa.select(domains.c.server_id, domains.c.state, disks.c.volume_id, disks.c.size, disks.c.told)
    .select_from(
        domains.outerjoin(disks, sa.and_(disks.c.host == domains.c.host, disks.c.server_id == domains.c.server_id))
    )
    .where(domains.c.host == sa.bindparam("b_host"))
)
_SAME_ALL: Final = Prepared(
    sa.update(domains)
    .where(domains.c.host == sa.bindparam("b_host"), domains.c.state != sa.bindparam("b_gone"))
    .values(seen_at=sa.bindparam("b_now"))
)
_SAME_DOMAINS: Final = (
    sa.update(domains)
    .where(
        domains.c.host == sa.bindparam("b_host"),
        domains.c.server_id.in_(sa.bindparam("b_servers", expanding=True)),
    )
    .values(seen_at=sa.bindparam("b_now"))
)


def hear(connection: sa.Connection, message: HostMessage, *, now: float, alive: Alive) -> HostUpdate:
    """Write liveness and inventory from one message.

    Within a run, an inventory older than the newest is left out, because messages may repeat and change order.
    """
    if message.inventory in _NOTHING_NEW and _still_there(connection, message, now, alive):
        return HostUpdate(host=message.host, came_up=False, restarted=False, moved_in=(), duplicate=False)
    row = _HOST.run(connection, {"name": message.host}).one_or_none()
    inventory = message.inventory
    if _is_forged(row, message, alive):
        return _refused(message.host)
    if row is None:
        connection.execute(
            sa.insert(hosts).values(
                name=message.host,
                boot_id=message.boot_id,
                seq=message.seq,
                turns=0,
                heartbeat_at=now,
                capabilities=_kept(inventory) if inventory is not None else "[]",
                bound=int(message.bound),
            )
        )
        moved_in, _ = _apply(connection, message.host, inventory, now) if inventory is not None else ((), 0)
        return HostUpdate(host=message.host, came_up=True, restarted=False, moved_in=moved_in, duplicate=False)
    same_run = row.boot_id == message.boot_id
    newer = not same_run or message.seq > row.seq
    turns = row.turns if same_run else _turns(row, message)
    confirmed = same_run and row.shrunk_at is not None and now - row.shrunk_at >= _CONFIRMED
    moved_in, lost = (
        _apply(connection, message.host, inventory, now, confirmed=confirmed)
        if newer and inventory is not None
        else ((), 0)
    )
    shrunk_at = row.shrunk_at if same_run else None
    if lost and shrunk_at is None:
        shrunk_at = now
    elif newer and inventory is not None and inventory.full and not lost:
        shrunk_at = None
    told = inventory is not None and newer and bool(inventory.capabilities or inventory.unsupported)
    _HEARD.run(
        connection,
        {
            "b_name": message.host,
            "b_now": now,
            "b_turns": turns,
            "b_seq": message.seq if newer else row.seq,
            "b_boot": message.boot_id,
            "b_last_boot": row.last_boot_id if same_run else row.boot_id,
            "b_capabilities": _kept(inventory) if told and inventory else row.capabilities,
            "b_bound": int(message.bound),
            "b_shrunk_at": shrunk_at,
        },
    )
    return HostUpdate(
        host=message.host,
        came_up=not same_run or row.heartbeat_at not in alive,
        restarted=not same_run,
        moved_in=moved_in,
        duplicate=turns >= _TURNS and not same_run,
        lost=lost,
    )


_ALL_STILL: Final = (
    sa.update(hosts)
    .where(
        sa.tuple_(hosts.c.name, hosts.c.boot_id).in_(sa.bindparam("b_runs", expanding=True)),
        hosts.c.heartbeat_at.between(sa.bindparam("b_since"), sa.bindparam("b_until")),
    )
    .values(heartbeat_at=sa.bindparam("b_now"))
)


def is_heartbeat(message: HostMessage) -> bool:
    """Return True if the message says no more than that its agent lives."""
    return not message.reports and not message.unread and message.inventory in _NOTHING_NEW


def all_still_there(
    connection: sa.Connection, messages: Sequence[HostMessage], *, now: float, alive: Alive
) -> bool:
    """Note heartbeats of hosts whose runs are known and alive, in one statement; return True if all are.

    On False no decision is made, and each message has to be heard alone.

    The numbers of the messages are not written, because a late inventory is compared with the newest inventory.
    """
    runs = sorted({(message.host, message.boot_id) for message in messages})
    noted = connection.execute(
        _ALL_STILL, {"b_runs": runs, "b_now": now, "b_since": alive.since, "b_until": alive.until}
    )
    return int(noted.rowcount) == len(runs)


def _kept(inventory: Inventory) -> str:
    """Write a host's capabilities for the column: a list, or an object if the agent gave reasons."""
    if not inventory.unsupported:
        return json.dumps(inventory.capabilities)
    return json.dumps({"can": inventory.capabilities, "cannot": dict(inventory.unsupported)})


def read_capabilities(kept: str) -> tuple[list[str], dict[str, str]]:
    """Return the volume types a host can extend, and the reason for each other type, from either form."""
    value = json.loads(kept)
    return (list(value["can"]), dict(value["cannot"])) if isinstance(value, dict) else (list(value), {})


def _still_there(connection: sa.Connection, message: HostMessage, now: float, alive: Alive) -> bool:
    """Note a newer message of a run that is known and alive, in one statement. This is the usual case."""
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
    """Count how often the run before the last came back.

    A late message comes back once, two agents come back again and again.
    """
    return row.turns + 1 if row.last_boot_id == message.boot_id else 0


def _is_forged(row: sa.Row[Any] | None, message: HostMessage, alive: Alive) -> bool:
    """Return True if the broker proves the name of a living agent, but not of this message."""
    return row is not None and bool(row.bound) and not message.bound and row.heartbeat_at in alive


def _refused(host: str) -> HostUpdate:
    return HostUpdate(host=host, came_up=False, restarted=False, moved_in=(), duplicate=False, refused=True)


def apply_part(
    connection: sa.Connection, message: HostMessage, some: Sequence[DomainSeen], *, now: float, alive: Alive
) -> tuple[str, ...]:
    """Write some domains of a large inventory ahead of its message; return the servers that became active here.

    The domains have a transaction of their own. They are as true as the whole inventory, and `record_message` then
    finds little left to write.
    """
    row = _HOST.run(connection, {"name": message.host}).one_or_none()
    late = row is not None and row.boot_id == message.boot_id and message.seq <= row.seq
    if late or _is_forged(row, message, alive):
        return ()
    return _apply(connection, message.host, Inventory(full=False, domains=tuple(some)), now)[0]


def _apply(
    connection: sa.Connection, host: str, inventory: Inventory, now: float, *, confirmed: bool = False
) -> tuple[tuple[str, ...], int]:
    """Write an inventory; return the servers that became active here, and how many it lacks without proof.

    An inventory without most of the recent servers comes from an agent at the wrong libvirt, or is a lie. The
    host's servers stay until an inventory of the same run says the same again (`confirmed`).
    """
    seen = {domain.server_id: domain for domain in inventory.domains}
    was: dict[str, str] = {}
    had: dict[tuple[str, str], _Had] = {}
    for row in _HAS.run(connection, {"b_host": host}):
        server_id, state, volume_id, size, told = tuple(row)
        was[server_id] = state
        if volume_id is not None and (inventory.full or server_id in seen):
            had[server_id, volume_id] = size, told
    known = {server_id for server_id, state in was.items() if state != GONE}
    gone = (known - seen.keys() - inventory.kept) if inventory.full else known & set(inventory.gone)
    lost = len(gone) if len(gone) >= _MANY and 2 * len(gone) >= len(known) and not confirmed else 0
    if lost:
        gone = set()
    _mark_gone(connection, host, gone, now)
    whole = inventory.full and not gone and not lost and not inventory.kept
    _write_domains(connection, host, seen, was, now, whole=whole)
    _write_disks(connection, host, seen.values(), {key: disk for key, disk in had.items() if key[0] in seen})
    active = GuestState.ACTIVE
    moved_in = tuple(d.server_id for d in seen.values() if d.state is active and was.get(d.server_id) != active)
    return moved_in, lost


def _mark_gone(connection: sa.Connection, host: str, gone: Collection[str], now: float) -> None:
    if gone:
        mine = sa.and_(domains.c.host == host, domains.c.server_id.in_(gone), domains.c.state != GONE)
        connection.execute(sa.update(domains).where(mine).values(state=GONE, seen_at=now))
        # A guest that migrates is gone here before another host reports it, and waits for its restart there too.
        waits = disks.c.told == Told.AT_RESTART.value
        connection.execute(
            sa.delete(disks).where(
                disks.c.host == host, disks.c.server_id.in_(gone), sa.not_(sa.func.coalesce(waits, False))
            )
        )


def _write_domains(
    connection: sa.Connection,
    host: str,
    seen: Mapping[str, DomainSeen],
    was: Mapping[str, str],
    now: float,
    *,
    whole: bool,
) -> None:
    """Write the domains; unchanged domains share one statement. `whole`: all known domains were seen."""
    same = [d.server_id for d in seen.values() if was.get(d.server_id) == d.state]
    changed = [d for d in seen.values() if d.server_id in was and was[d.server_id] != d.state]
    new = [d for d in seen.values() if d.server_id not in was]
    if same and whole and not changed:
        _SAME_ALL.run(connection, {"b_host": host, "b_now": now, "b_gone": GONE})
    elif same:
        connection.execute(_SAME_DOMAINS, {"b_host": host, "b_servers": same, "b_now": now})
    if changed:
        connection.execute(
            sa.update(domains)
            .where(domains.c.host == host, domains.c.server_id == sa.bindparam("b_server"))
            .values(state=sa.bindparam("b_state"), seen_at=now),
            [{"b_server": d.server_id, "b_state": d.state} for d in changed],
        )
    if new:
        connection.execute(
            sa.insert(domains),
            [{"server_id": d.server_id, "host": host, "state": d.state, "seen_at": now} for d in new],
        )


_Had = tuple[int | None, str | None]
"""Size and `told` of a disk as the journal has them."""


def _write_disks(
    connection: sa.Connection,
    host: str,
    seen: Collection[DomainSeen],
    was: Mapping[tuple[str, str], _Had],
) -> None:
    """Write the differences. `was`: the journal's rows of these domains' disks."""
    now = {
        (d.server_id, k.volume_id): (k.size, _kept_told(k, was.get((d.server_id, k.volume_id))))
        for d in seen
        for k in d.disks
    }
    for key in [key for key in was if key not in now]:
        connection.execute(
            sa.delete(disks).where(disks.c.host == host, disks.c.server_id == key[0], disks.c.volume_id == key[1])
        )
    changed = [key for key in now if key in was and was[key] != now[key]]
    if changed:
        connection.execute(
            sa.update(disks)
            .where(
                disks.c.host == host,
                disks.c.server_id == sa.bindparam("b_server"),
                disks.c.volume_id == sa.bindparam("b_volume"),
            )
            .values(size=sa.bindparam("b_size"), told=sa.bindparam("b_told")),
            [{"b_server": s, "b_volume": v, "b_size": now[s, v][0], "b_told": now[s, v][1]} for s, v in changed],
        )
    if new := [key for key in now if key not in was]:
        waiting = _take_over(connection, host, [key for key in new if now[key][1] is None])
        connection.execute(
            sa.insert(disks),
            [
                {
                    "server_id": s,
                    "volume_id": v,
                    "host": host,
                    "size": now[s, v][0],
                    "told": Told.AT_RESTART.value if (s, v) in waiting else now[s, v][1],
                }
                for s, v in new
            ],
        )


def _kept_told(disk: DiskSeen, was: _Had | None) -> str | None:
    """Return the `told` to write for a disk.

    If a host cannot tell, the value known for the same size stays. A guest that waits for its restart goes on
    waiting.
    """
    if disk.told is not None:
        return disk.told.value
    if was is None or (was[0] != disk.size and was[1] != Told.AT_RESTART.value):
        return None
    return was[1]


def _take_over(connection: sa.Connection, host: str, keys: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return which of these disks waited for their guest's restart on another host, and end that wait there."""
    if not keys:
        return set()
    elsewhere = sa.and_(
        disks.c.server_id.in_({server_id for server_id, _ in keys}),
        disks.c.host != host,
        disks.c.told == Told.AT_RESTART.value,
    )
    waiting = {
        (row.server_id, row.volume_id)
        for row in connection.execute(sa.select(disks.c.server_id, disks.c.volume_id).where(elsewhere))
    } & set(keys)
    if waiting:
        left = sa.tuple_(domains.c.server_id, domains.c.host) == sa.tuple_(disks.c.server_id, disks.c.host)
        gone = sa.exists().where(left, domains.c.state == GONE)
        connection.execute(sa.delete(disks).where(elsewhere, gone))
    return waiting
