# SPDX-License-Identifier: Apache-2.0
"""A host speaks for itself: what the journal believes of a message that may not be from its host, or lacks much."""

import dataclasses
from typing import Final

import pytest
import sqlalchemy as sa

from bridge.core import limits
from bridge.core.extend import Bytes, ExtendKey, new_id
from bridge.core.inventory import DiskSeen, DomainSeen, GuestState, Inventory
from bridge.journal.portions import portions
from bridge.journal.reports import BatchResult
from bridge.journal.tables import disks, domains
from tests.unit.journal.conftest import Bench

HOST: Final = "cmp-1"


def keys(number: int) -> list[ExtendKey]:
    return [ExtendKey(new_id(), new_id()) for _ in range(number)]


def say(bench: Bench, inventory: Inventory | None, *, bound: bool = False, boot: str | None = None) -> BatchResult:
    message = dataclasses.replace(bench.message(HOST, inventory=inventory), bound=bound)
    return bench.reported.take([dataclasses.replace(message, boot_id=boot) if boot else message])


def full(*of: ExtendKey) -> Inventory:
    seen = (DomainSeen(server_id=k.server_id, state=GuestState.ACTIVE) for k in of)
    return Inventory(full=True, domains=tuple(seen))


def there(bench: Bench) -> int:
    query = sa.select(sa.func.count()).where(domains.c.host == HOST, domains.c.state != "gone")
    return int(bench.database.read(lambda c: c.scalar(query)) or 0)


def test_while_a_bound_agent_lives_an_unbound_message_in_its_name_changes_nothing(bench: Bench) -> None:
    say(bench, full(*keys(2)), bound=True)
    answer = say(bench, Inventory(full=True), boot=new_id())
    assert (answer.refused, answer.came_up, there(bench)) == ([HOST], [], 2)


@pytest.mark.parametrize("number", [1, 6])  # alone, and as heartbeats that are noted together
def test_not_even_the_run_of_the_bound_agent_makes_an_unbound_message_its_own(bench: Bench, number: int) -> None:
    """Its number would be the newest from then on, and every true inventory would count as late."""
    say(bench, full(*keys(2)), bound=True)
    true = bench.message(HOST)
    forged = [dataclasses.replace(true, seq=10**9 + n) for n in range(number)]
    assert bench.reported.take(forged).refused == [HOST] * number
    assert say(bench, full(*keys(3)), bound=True).refused == []
    assert there(bench) == 3


def test_an_agent_that_went_back_to_an_older_release_is_heard_when_the_bound_one_is_silent(bench: Bench) -> None:
    say(bench, full(*keys(2)), bound=True)
    bench.now += 61
    answer = say(bench, full(*keys(1)), boot=new_id())
    assert (answer.refused, answer.came_up, there(bench)) == ([], [HOST], 1)


def test_an_inventory_that_shrinks_at_once_is_held_until_it_is_repeated(bench: Bench) -> None:
    many = keys(12)
    say(bench, full(*many))
    assert say(bench, full(*many[:2])).lost == {HOST: 10}
    assert there(bench) == 12
    bench.now += 10
    assert say(bench, full(*many[:2])).lost == {HOST: 10}, "another agent of this name may not have spoken yet"
    bench.now += 30
    assert say(bench, full(*many[:2])).lost == {}
    assert there(bench) == 2


def test_a_whole_inventory_in_between_withdraws_the_one_that_shrank(bench: Bench) -> None:
    many = keys(12)
    say(bench, full(*many))
    say(bench, full())
    bench.now += 40
    say(bench, full(*many))
    bench.now += 40
    assert say(bench, full()).lost == {HOST: 12}
    assert there(bench) == 12


@pytest.mark.parametrize(("had", "left"), [(9, 0), (30, 21)])
def test_few_servers_that_go_are_gone_at_once(bench: Bench, had: int, left: int) -> None:
    many = keys(had)
    say(bench, full(*many))
    assert say(bench, full(*many[:left])).lost == {}
    assert there(bench) == left


def test_a_domain_that_could_not_be_read_stays_as_it_was(bench: Bench) -> None:
    first, second = keys(2)
    say(bench, full(first, second))
    say(bench, dataclasses.replace(full(first), kept=frozenset({second.server_id})))
    assert there(bench) == 2


def test_a_large_inventory_goes_in_several_transactions_and_is_whole_afterwards(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ROWS", dataclasses.replace(limits.ROWS, most=20))
    seen = tuple(
        DomainSeen(
            server_id=new_id(), state=GuestState.ACTIVE,
            disks=tuple(DiskSeen(volume_id=new_id(), size=Bytes(1)) for _ in range(3)),
        )
        for _ in range(40)
    )  # fmt: skip
    written: list[int] = []
    write = bench.database.write

    def counting(work: object) -> object:
        written.append(1)
        return write(work)  # type: ignore[arg-type]

    monkeypatch.setattr(bench.database, "write", counting)
    say(bench, Inventory(full=True, domains=seen))
    assert len(written) > 5
    assert there(bench) == 40
    assert bench.database.read(lambda c: c.scalar(sa.select(sa.func.count()).select_from(disks))) == 120


def test_a_batch_is_cut_where_a_transaction_would_get_too_long(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ROWS", dataclasses.replace(limits.ROWS, most=60))
    messages = [bench.message(f"h{n}", inventory=full(*keys(4))) for n in range(5)]
    cut = list(portions(messages))
    assert [message for portion in cut for message in portion] == messages
    assert [len(portion) for portion in cut] == [2, 2, 1]


def test_a_guest_that_two_living_hosts_run_is_disputed_until_one_is_silent(bench: Bench) -> None:
    (key,) = keys(1)
    bench.has("h1", key)
    assert bench.work.disputed(host_timeout=60) == {}
    bench.has("h2", key, state=GuestState.INCOMING)
    assert bench.work.disputed(host_timeout=60) == {}
    bench.has("h2", key)
    assert {s: sorted(h) for s, h in bench.work.disputed(host_timeout=60).items()} == {key.server_id: ["h1", "h2"]}
    bench.now += 61
    bench.has("h2", key)
    assert bench.work.disputed(host_timeout=60) == {}
