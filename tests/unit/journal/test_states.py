# SPDX-License-Identifier: Apache-2.0
"""What a report does to its extend, as a table."""

import pytest

from bridge.core.extend import Bytes, ExtendKey, new_id
from bridge.core.messages import Report
from bridge.core.outcome import THEN, Outcome, Then
from bridge.core.reasons import Reason
from bridge.journal.states import Attempt, Extend, Move, SettleDecision, settle
from bridge.runtime.retry import Backoff

KEY = ExtendKey(new_id(), new_id())
TARGET = Bytes(2 * 1024**3)
NOW = 1000.0


def decide(
    outcome: Outcome,
    *,
    after: int | None = TARGET,
    wanted: int = 1,
    gen: int = 1,
    number: int = 1,
    current: int = 1,
    ended: bool = False,
    said_by: str = "h1",
    about: ExtendKey = KEY,
    closed: bool = False,
    siblings: bool = False,
    failures: int = 0,
) -> SettleDecision:
    """settle() with everything ordinary but what the test names."""
    extend = Extend(
        id="e",
        key=KEY,
        wanted_gen=wanted,
        attempt=current,
        failures=failures,
        opened_at=0.0,
        request_id=None,
        global_request_id=None,
    )
    return settle(
        None if closed else extend,
        Attempt(id="a", extend_id="e", key=KEY, host="h1", number=number, gen=gen, target=TARGET, ended=ended),
        Report(
            attempt_id="a",
            key=about,
            gen=gen,
            outcome=outcome,
            reason="said",
            target=Bytes(1),  # a host's own idea of the target counts for nothing
            after=Bytes(after) if after is not None else None,
        ),
        host=said_by,
        siblings_pending=siblings,
        now=NOW,
        backoff=Backoff(first=8, cap=64, floor=8),
    )


def test_every_outcome_has_a_consequence() -> None:
    """A new outcome without a line in the table is found here."""
    assert set(THEN) == set(Outcome)


@pytest.mark.parametrize("outcome", [o for o in Outcome if THEN[o] in {Then.CLOSE, Then.DROP}])
def test_a_final_outcome_of_the_wanted_generation_closes(outcome: Outcome) -> None:
    assert decide(outcome).move is Move.CLOSE


@pytest.mark.parametrize("outcome", [Outcome.UNSUPPORTED, Outcome.REFUSED])
def test_what_nobody_can_do_ends_as_failed(outcome: Outcome) -> None:
    assert decide(outcome, after=None).move is Move.FAIL


@pytest.mark.parametrize("outcome", [o for o in Outcome if THEN[o] in {Then.RETRY, Then.LOCATE, Then.RECHECK}])
def test_a_retryable_outcome_is_due_again_after_a_growing_back_off(outcome: Outcome) -> None:
    first, later = decide(outcome, after=None), decide(outcome, after=None, failures=9)
    assert first.move is later.move is Move.AGAIN
    assert first.due_at == NOW + 8
    assert later.due_at is not None
    assert NOW + 8 <= later.due_at <= NOW + 64
    assert (first.failures, later.failures) == (1, 10)


@pytest.mark.parametrize("outcome", [Outcome.RESIZED, Outcome.ALREADY])
@pytest.mark.parametrize("after", [None, 0, TARGET - 1])
def test_a_success_that_was_not_read_back_is_no_success(outcome: Outcome, after: int | None) -> None:
    decision = decide(outcome, after=after)
    assert (decision.move, decision.outcome, decision.reason) == (Move.AGAIN, Outcome.ERROR, Reason.NOT_VERIFIED)


def test_success_for_an_older_generation_leaves_the_extend_open_and_due_now() -> None:
    decision = decide(Outcome.RESIZED, gen=1, wanted=2)
    assert (decision.move, decision.due_at) == (Move.NEWER, NOW)


def test_a_failure_for_an_older_generation_does_not_end_the_newer_one() -> None:
    assert decide(Outcome.REFUSED, gen=1, wanted=2, after=None).move is Move.NEWER


def test_a_late_success_of_an_earlier_dispatch_still_closes_when_nothing_newer_is_wanted() -> None:
    assert decide(Outcome.RESIZED, number=1, current=3).move is Move.CLOSE


def test_a_late_failure_of_an_earlier_dispatch_is_noted_and_changes_nothing() -> None:
    assert decide(Outcome.BUSY, number=1, current=3, after=None).move is Move.NOTE


def test_not_here_from_one_side_of_a_migration_waits_for_the_other_side() -> None:
    assert decide(Outcome.NOT_HERE, siblings=True, after=None).move is Move.NOTE
    assert decide(Outcome.NOT_HERE, siblings=False, after=None).move is Move.AGAIN


def test_a_report_told_twice_is_ignored() -> None:
    assert decide(Outcome.RESIZED, ended=True).move is Move.IGNORE


def test_a_host_settles_only_its_own_attempts() -> None:
    assert decide(Outcome.RESIZED, said_by="h2").move is Move.IGNORE


def test_an_attempt_settles_only_the_disk_it_was_made_for() -> None:
    """A host that was taken over has true attempts of its own, and may report them for another guest's volume."""
    assert decide(Outcome.RESIZED, about=ExtendKey(KEY.server_id, new_id())).move is Move.IGNORE
    assert decide(Outcome.UNSUPPORTED, about=ExtendKey(new_id(), KEY.volume_id)).move is Move.IGNORE


def test_a_report_after_the_end_is_recorded_and_nothing_more() -> None:
    assert decide(Outcome.RESIZED, closed=True).move is Move.NOTE
