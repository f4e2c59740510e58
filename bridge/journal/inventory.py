# SPDX-License-Identifier: Apache-2.0
"""Domains and disks of a host: its inventory, written where it differs from the journal."""

from collections.abc import Collection, Mapping
from typing import Final

import sqlalchemy as sa

from bridge.core.inventory import DiskSeen, DomainSeen, GuestState, Inventory
from bridge.core.outcome import Told
from bridge.journal.database import Prepared
from bridge.journal.tables import disks, domains

_MANY: Final = 10  # servers that one inventory lacks; with fewer the inventory is believed
GONE: Final = "gone"
"""State of a domain its host no longer reports: the server stays known, on no host."""

# Two statements, because SQLite reads all disks of the host for each of its domains in a join of the two tables.
_HAS_DOMAINS: Final = Prepared(
    sa.select(domains.c.server_id, domains.c.state).where(domains.c.host == sa.bindparam("b_host"))
)
_HAS_DISKS: Final = Prepared(
    sa.select(disks.c.server_id, disks.c.volume_id, disks.c.size, disks.c.told).where(
        disks.c.host == sa.bindparam("b_host")
    )
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


def write_inventory(
    connection: sa.Connection, host: str, inventory: Inventory, now: float, *, confirmed: bool = False
) -> tuple[tuple[str, ...], int]:
    """Write an inventory; return the servers that became active here, and how many it lacks without proof.

    An inventory without most of the recent servers comes from an agent at the wrong libvirt, or is a lie. The
    host's servers stay until an inventory of the same run says the same again (`confirmed`).
    """
    seen = {domain.server_id: domain for domain in inventory.domains}
    was: dict[str, str] = dict(map(tuple, _HAS_DOMAINS.run(connection, {"b_host": host})))
    had: dict[tuple[str, str], _Had] = {}
    for row in _HAS_DISKS.run(connection, {"b_host": host}) if seen else ():
        server_id, volume_id, size, told = tuple(row)
        if server_id in seen:
            had[server_id, volume_id] = size, told
    known = {server_id for server_id, state in was.items() if state != GONE}
    gone = (known - seen.keys() - inventory.kept) if inventory.full else known & set(inventory.gone)
    lost = len(gone) if len(gone) >= _MANY and 2 * len(gone) >= len(known) and not confirmed else 0
    if lost:
        gone = set()
    _mark_gone(connection, host, gone, now)
    whole = inventory.full and not gone and not lost and not inventory.kept
    _write_domains(connection, host, seen, was, now, whole=whole)
    _write_disks(connection, host, seen.values(), had)
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
