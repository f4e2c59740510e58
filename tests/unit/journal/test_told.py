# SPDX-License-Identifier: Apache-2.0
"""What the journal keeps of guests that do not know their disks' sizes, and what is due when a guest is back."""

import pytest
import sqlalchemy as sa

from bridge.core.extend import GIB, Bytes, ExtendKey, gib, new_id
from bridge.core.inventory import DiskSeen, DomainSeen, GuestState, Inventory
from bridge.core.messages import HostMessage, Report
from bridge.core.outcome import Outcome, Told
from bridge.core.reasons import Reason
from bridge.journal.behind import Behind
from bridge.journal.claims import NewAttempt
from bridge.journal.states import Move
from bridge.journal.tables import disks
from tests.unit.journal.conftest import TARGET, Bench


def seen(key: ExtendKey, told: Told | None, state: GuestState = GuestState.ACTIVE, size: int = TARGET) -> Inventory:
    """An inventory with one guest."""
    disk = DiskSeen(volume_id=key.volume_id, size=Bytes(size), told=told)
    domain = DomainSeen(server_id=key.server_id, state=state, disks=(disk,))
    wire = HostMessage(
        host="h", boot_id="00000000-0000-0000-0000-000000000000", seq=1, sent_at=0.0,
        inventory=Inventory(full=True, domains=(domain,)),
    ).to_wire()  # fmt: skip
    inventory = HostMessage.from_wire(wire).inventory
    assert inventory is not None
    return inventory


def say(bench: Bench, host: str, inventory: Inventory) -> None:
    bench.reported.take([bench.message(host, inventory=inventory)])


def known(bench: Bench) -> dict[str, str | None]:
    """By host."""
    return dict(
        bench.database.read(lambda c: [tuple(row) for row in c.execute(sa.select(disks.c.host, disks.c.told))])
    )


def behind(bench: Bench) -> dict[str, int]:
    return dict(Behind(bench.database).numbers().behind)


def test_a_guest_that_waits_for_its_restart_is_counted_and_named_until_then(bench: Bench, key: ExtendKey) -> None:
    say(bench, "h1", seen(key, Told.AT_RESTART))
    assert behind(bench) == {Reason.SEEN_AT_RESTART: 1}
    [named] = Behind(bench.database).behind(limit=9)
    assert (named.key, named.why, named.host, named.wanted) == (key, Reason.SEEN_AT_RESTART, "h1", TARGET)
    assert Behind(bench.database).numbers().since is None, "nothing is late"
    say(bench, "h1", seen(key, Told.YES))
    assert behind(bench) == {}


def test_an_agent_that_was_restarted_and_cannot_know_takes_nothing_back(bench: Bench, key: ExtendKey) -> None:
    say(bench, "h1", seen(key, Told.AT_RESTART))
    say(bench, "h1", seen(key, None))
    assert known(bench) == {"h1": Told.AT_RESTART}


def test_the_wait_moves_with_its_guest(bench: Bench, key: ExtendKey) -> None:
    """Live migration: gone here first, or seen there first."""
    say(bench, "h1", seen(key, Told.AT_RESTART))
    say(bench, "h1", Inventory(full=False, gone=(key.server_id,)))
    assert behind(bench) == {}, "it is on no host"
    say(bench, "h2", seen(key, None))
    assert known(bench) == {"h2": Told.AT_RESTART}
    say(bench, "h1", seen(key, None))
    say(bench, "h2", Inventory(full=False, gone=(key.server_id,)))
    assert behind(bench) == {Reason.SEEN_AT_RESTART: 1}


def test_an_older_agent_says_nothing_of_it(bench: Bench, key: ExtendKey) -> None:
    say(bench, "h1", seen(key, None))
    assert (known(bench), behind(bench)) == ({"h1": None}, {})


def test_a_guest_that_is_not_told_is_behind(bench: Bench, key: ExtendKey) -> None:
    say(bench, "h1", seen(key, Told.NO))
    assert behind(bench) == {Reason.GUEST_NOT_TOLD: 1}
    say(bench, "h1", seen(key, None, size=TARGET))
    assert behind(bench) == {Reason.GUEST_NOT_TOLD: 1}
    say(bench, "h1", seen(key, Told.YES))
    assert behind(bench) == {}


def test_a_saved_guests_extend_is_due_in_the_moment_it_is_back(bench: Bench, key: ExtendKey) -> None:
    say(bench, "h1", seen(key, None, GuestState.OFF))
    bench.arrive(key)
    [attempt] = bench.dispatch(bench.claim()[0], "h1")
    taken = bench.report(attempt, Outcome.GUEST_SAVED, after=None)
    assert [s.decision.move for s in taken.settled if s.decision] == [Move.AGAIN]
    assert bench.claim() == []
    taken = bench.reported.take([bench.message("h1", inventory=seen(key, Told.NO))])
    assert taken.back == 1
    assert [extend.key for extend in bench.claim()] == [key]


def overhead(attempt: NewAttempt, after: int, overhead: int) -> Report:
    report = Report(
        attempt_id=attempt.id, key=attempt.extend.key, gen=attempt.extend.wanted_gen, outcome=Outcome.RESIZED,
        reason="fixed_overhead", target=attempt.target, after=Bytes(after), overhead=overhead,
    )  # fmt: skip
    return Report.from_wire(report.to_wire())


def test_a_device_with_a_fixed_overhead_closes_its_extend(bench: Bench, key: ExtendKey) -> None:
    bench.arrive(key)
    [attempt] = bench.dispatch(bench.claim()[0], "h1")
    taken = bench.reported.take([bench.message("h1", reports=(overhead(attempt, TARGET - 4096, 4096),))])
    assert [s.decision.move for s in taken.settled if s.decision] == [Move.CLOSE]


def test_no_host_calls_a_whole_gib_an_overhead(bench: Bench, key: ExtendKey) -> None:
    """Cinder's volumes grow by whole GiB: that much missing is an extend that did not happen."""
    bench.arrive(key)
    [attempt] = bench.dispatch(bench.claim()[0], "h1")
    taken = bench.reported.take([bench.message("h1", reports=(overhead(attempt, gib(1), GIB),))])
    assert [s.decision.move for s in taken.settled if s.decision] == [Move.AGAIN]


def test_a_guest_may_be_saved_for_weeks_and_nothing_is_late(bench: Bench, key: ExtendKey) -> None:
    """No alarm; a guest that is not saved is overdue as ever."""
    bench.arrive(key)
    [attempt] = bench.dispatch(bench.claim()[0], "h1")
    bench.report(attempt, Outcome.GUEST_SAVED, after=None)
    other = ExtendKey(new_id(), new_id())
    bench.arrive(other)
    bench.now += 1_000_000
    assert [extend.key for extend in bench.work.mark_overdue(older_than=60)] == [other]
    backlog = bench.work.standing()
    assert (backlog.open, backlog.oldest) == (2, bench.now - 1_000_000)
    assert {extend.key for extend in bench.claim()} == {key, other}, "it is asked again all the same"


@pytest.mark.parametrize("first", ["off", "running"])
def test_off_on_one_host_is_no_end_while_another_has_not_reported(bench: Bench, key: ExtendKey, first: str) -> None:
    """A guest that has just migrated leaves a shut-off definition behind."""
    bench.arrive(key)
    here, there = bench.dispatch(bench.claim()[0], "h1", "h2")
    if first == "off":
        taken = bench.report(here, Outcome.GUEST_OFF, after=None)
        assert [s.decision.move for s in taken.settled if s.decision] == [Move.NOTE]
    taken = bench.report(there, Outcome.RESIZED)
    assert [s.decision.move for s in taken.settled if s.decision] == [Move.CLOSE]


def test_off_closes_where_the_other_host_has_not_the_guest(bench: Bench, key: ExtendKey) -> None:
    bench.arrive(key)
    here, there = bench.dispatch(bench.claim()[0], "h1", "h2")
    bench.report(there, Outcome.NOT_HERE, after=None)
    taken = bench.report(here, Outcome.GUEST_OFF, after=None)
    assert [s.decision.move for s in taken.settled if s.decision] == [Move.CLOSE]
