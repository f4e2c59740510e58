# SPDX-License-Identifier: Apache-2.0
"""What reconciliation wrote down and what is made of it: since when, and who is still behind. On each database."""

from bridge.core.extend import ExtendKey, gib, new_id
from bridge.core.outcome import Outcome
from bridge.journal.behind import Behind
from bridge.journal.findings import Finding, Findings, FindingState, agents_of, known
from bridge.journal.hosts import Alive
from tests.unit.journal.conftest import Bench

HOST = "h1"


def see(bench: Bench, key: ExtendKey, sight: FindingState | None, reason: str = "x", size: int | None = 1) -> None:
    """A pass comes by this volume; None: it is fine."""
    found = [Finding(key=key, sight=sight, reason=reason, host=HOST, size=size, wanted=gib(2))] if sight else []
    Findings(bench.database).note({key.volume_id}, found, at=bench.now)


def behind(bench: Bench) -> list[tuple[ExtendKey, float, str]]:
    """Who is, since when, why."""
    return [(lag.key, lag.since, lag.why) for lag in Behind(bench.database).behind(limit=10)]


def test_a_guest_is_behind_since_it_was_first_seen_so_whatever_is_done_about_it(
    bench: Bench, key: ExtendKey
) -> None:
    since = bench.now
    see(bench, key, FindingState.BEHIND, "nobody_told")
    bench.now += 600
    bench.arrive(key)
    assert behind(bench) == [(key, since, "on_its_way")]
    see(bench, key, FindingState.OPEN, "host_down")
    bench.now += 600
    see(bench, key, FindingState.FAILED, "refused")
    assert behind(bench) == [(key, since, "on_its_way")]


def test_what_nobody_can_see_any_more_counts_from_then_on(bench: Bench, key: ExtendKey) -> None:
    see(bench, key, FindingState.BEHIND)
    bench.now += 600
    see(bench, key, FindingState.CANNOT_SEE, "host_down", None)
    (lag,) = Behind(bench.database).unseen(limit=10)
    assert (lag.key, lag.since, lag.why, lag.size) == (key, bench.now, "host_down", None)
    assert behind(bench) == []
    numbers = Behind(bench.database).numbers()
    assert (numbers.behind, numbers.unseen, numbers.since) == ({}, {"host_down": 1}, None)


def test_a_guest_that_was_mended_since_is_behind_no_more(bench: Bench, key: ExtendKey) -> None:
    see(bench, key, FindingState.BEHIND)
    bench.now += 1
    bench.arrive(key)
    (attempt,) = bench.dispatch(bench.claim()[0], HOST)
    assert len(behind(bench)) == 1
    bench.report(attempt, Outcome.RESIZED)
    assert behind(bench) == []


def test_a_guest_whose_extend_failed_is_behind_with_the_reason_until_it_is_opened_again(
    bench: Bench, key: ExtendKey
) -> None:
    bench.arrive(key)
    (attempt,) = bench.dispatch(bench.claim()[0], HOST)
    bench.report(attempt, Outcome.UNSUPPORTED, after=None)
    assert [why for _, _, why in behind(bench)] == ["unsupported"]
    bench.now += 1
    bench.arrive(key)
    assert len(behind(bench)) == 1


def test_only_what_was_seen_in_this_pass_stays(bench: Bench, key: ExtendKey) -> None:
    other = ExtendKey(new_id(), new_id())
    see(bench, key, FindingState.BEHIND)
    see(bench, other, FindingState.BEHIND)
    bench.now += 600
    see(bench, other, FindingState.BEHIND)
    Findings(bench.database).forget(before=bench.now)
    assert [found for found, _, _ in behind(bench)] == [other]


def test_known_tells_who_is_on_what_host_what_is_open_and_which_agents_ever_spoke(
    bench: Bench, key: ExtendKey
) -> None:
    bench.has(HOST, key)
    bench.has("h2")
    bench.arrive(key)
    alive = Alive(since=bench.now - 60, until=bench.now + 60)
    facts = known(bench.database, {key.volume_id}, alive)
    assert [(seen.host, seen.size, seen.alive) for seen in facts.seen[key]] == [(HOST, 1, True)]
    assert facts.open == {key: None}
    assert agents_of(bench.database, {HOST, "h2", "h3"}, alive) == {HOST: True, "h2": True}
    late = Alive(since=bench.now + 1, until=bench.now + 60)
    assert agents_of(bench.database, {HOST}, late) == {HOST: False}
