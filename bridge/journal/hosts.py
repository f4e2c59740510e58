# SPDX-License-Identifier: Apache-2.0
"""Liveness of hosts: written from their messages, read with their inventories to locate a server."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from bridge.core.inventory import DomainSeen, GuestState, Inventory
from bridge.core.messages import HostMessage
from bridge.journal.database import Prepared
from bridge.journal.inventory import GONE, write_inventory
from bridge.journal.tables import domains, hosts

_CONFIRMED: Final = 30.0  # seconds within which another agent of the same name would be heard
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
        sa.func.coalesce(hosts.c.bound, 0) <= sa.bindparam("b_bound"),  # else the sender is not proved
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
        moved_in, _ = (
            write_inventory(connection, message.host, inventory, now) if inventory is not None else ((), 0)
        )
        return HostUpdate(host=message.host, came_up=True, restarted=False, moved_in=moved_in, duplicate=False)
    same_run = row.boot_id == message.boot_id
    newer = not same_run or message.seq > row.seq
    turns = row.turns if same_run else _turns(row, message)
    confirmed = same_run and row.shrunk_at is not None and now - row.shrunk_at >= _CONFIRMED
    moved_in, lost = (
        write_inventory(connection, message.host, inventory, now, confirmed=confirmed)
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
        sa.or_(sa.func.coalesce(hosts.c.bound, 0) == 0, hosts.c.name.in_(sa.bindparam("b_proved", expanding=True))),
    )
    .values(heartbeat_at=sa.bindparam("b_now"))
)


def is_heartbeat(message: HostMessage) -> bool:
    """Return True if the message says no more than that its agent lives."""
    says_more = message.reports or message.file_systems or message.unread
    return not says_more and message.inventory in _NOTHING_NEW


def all_still_there(
    connection: sa.Connection, messages: Sequence[HostMessage], *, now: float, alive: Alive
) -> bool:
    """Note heartbeats of hosts whose runs are known and alive, in one statement; return True if all are.

    On False no decision is made, and each message has to be heard alone.

    The numbers of the messages are not written, because a late inventory is compared with the newest inventory.
    """
    runs = sorted({(message.host, message.boot_id) for message in messages})
    proved = sorted({message.host for message in messages if message.bound})
    noted = connection.execute(
        _ALL_STILL,
        {"b_runs": runs, "b_proved": proved, "b_now": now, "b_since": alive.since, "b_until": alive.until},
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
            "b_bound": int(message.bound),
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
    return write_inventory(connection, message.host, Inventory(full=False, domains=tuple(some)), now)[0]
