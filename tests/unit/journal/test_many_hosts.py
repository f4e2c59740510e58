# SPDX-License-Identifier: Apache-2.0
"""Heartbeats and inventories as a large fleet sends them: together, mostly unchanged. On each database."""

import sqlalchemy as sa

from bridge.core.extend import Bytes, ExtendKey, new_id
from bridge.core.inventory import DiskSeen, DomainSeen, GuestState, Inventory
from bridge.core.messages import HostMessage
from bridge.journal.tables import disks, domains, hosts
from tests.unit.journal.conftest import HOST_TIMEOUT, Bench

FLEET = [f"h{n}" for n in range(6)]


def heard(bench: Bench) -> dict[str, float]:
    """When each host was heard last."""
    return bench.database.read(
        lambda c: {row.name: row.heartbeat_at for row in c.execute(sa.select(hosts.c.name, hosts.c.heartbeat_at))}
    )


def beats(bench: Bench, *names: str) -> list[HostMessage]:
    """One of each."""
    return [bench.message(name, inventory=Inventory(full=False)) for name in names]


def test_heartbeats_of_a_known_fleet_are_noted_together(bench: Bench) -> None:
    for name in FLEET:
        bench.has(name)
    bench.now += 10
    taken = bench.reported.take(beats(bench, *FLEET, FLEET[0]))
    assert (taken.came_up, taken.duplicate) == ([], [])
    assert heard(bench) == dict.fromkeys(FLEET, bench.now)


def test_among_many_heartbeats_a_host_that_comes_back_or_restarts_is_still_seen(bench: Bench) -> None:
    for name in FLEET:
        bench.has(name)
    bench.now += HOST_TIMEOUT + 1
    bench.reported.take(beats(bench, *FLEET[1:]))
    bench.now += 1
    assert bench.reported.take(beats(bench, *FLEET)).came_up == [FLEET[0]]
    bench.now += 1
    again = HostMessage(host=FLEET[2], boot_id=new_id(), seq=1, sent_at=0.0, inventory=Inventory(full=False))
    assert bench.reported.take([*beats(bench, *FLEET[3:]), again]).came_up == [FLEET[2]]
    new = HostMessage(host="new", boot_id=bench.boot, seq=1, sent_at=0.0, inventory=Inventory(full=False))
    assert bench.reported.take([*beats(bench, *FLEET[3:]), new]).came_up == ["new"]
    assert set(heard(bench)) == {*FLEET, "new"}


def test_a_late_inventory_is_left_out_though_heartbeats_came_in_between(bench: Bench, key: ExtendKey) -> None:
    for name in FLEET:
        bench.has(name)
    late = bench.message(FLEET[0], inventory=Inventory(full=True))
    bench.has(FLEET[0], key)
    bench.reported.take(beats(bench, *FLEET))
    bench.reported.take([late])
    assert bench.database.read(lambda c: c.scalar(sa.select(domains.c.state))) == GuestState.ACTIVE


def test_an_inventory_changes_what_is_different_and_leaves_the_rest(bench: Bench) -> None:
    server, gone = new_id(), new_id()
    kept, grown, detached, attached = (new_id() for _ in range(4))

    def tell(state: GuestState, sizes: dict[str, int | None], *others: str) -> None:
        seen = tuple(DiskSeen(volume_id=v, size=None if s is None else Bytes(s)) for v, s in sizes.items())
        domain = DomainSeen(server_id=server, state=state, disks=seen)
        more = tuple(DomainSeen(server_id=other, state=GuestState.ACTIVE) for other in others)
        inventory = Inventory(full=True, domains=(domain, *more))
        bench.reported.take([bench.message("h1", inventory=inventory)])

    def known() -> dict[str, int | None]:
        query = sa.select(disks.c.volume_id, disks.c.size).where(disks.c.host == "h1")
        return bench.database.read(lambda c: {row.volume_id: row.size for row in c.execute(query)})

    tell(GuestState.ACTIVE, {kept: 1, grown: 1, detached: 1}, gone)
    bench.now += 600
    tell(GuestState.OFF, {kept: 1, grown: 2, attached: None})
    assert known() == {kept: 1, grown: 2, attached: None}
    states = bench.database.read(
        lambda c: {row.server_id: (row.state, row.seen_at) for row in c.execute(sa.select(domains))}
    )
    assert states == {server: ("off", bench.now), gone: ("gone", bench.now)}
    bench.now += 600
    tell(GuestState.OFF, {kept: 1, grown: 2, attached: None})
    assert known() == {kept: 1, grown: 2, attached: None}
    assert bench.database.read(
        lambda c: c.scalar(sa.select(domains.c.seen_at).where(domains.c.server_id == server))
    ) == (bench.now)
