# SPDX-License-Identifier: Apache-2.0
"""A batch of host messages: each report on its own row, whatever their number, order and copies."""

import dataclasses

import sqlalchemy as sa

from bridge.core.extend import Bytes, ExtendKey, new_id
from bridge.core.messages import HostMessage, Report
from bridge.core.outcome import Outcome
from bridge.journal.claims import NewAttempt
from bridge.journal.reports import BatchResult
from bridge.journal.states import Move
from bridge.journal.tables import attempts, extends, hosts, transitions
from tests.unit.journal.conftest import HOST_TIMEOUT, TARGET, Bench

OUTCOMES = [Outcome.RESIZED, Outcome.ALREADY, Outcome.BUSY, Outcome.REFUSED, Outcome.NOT_HERE, Outcome.GUEST_OFF]


def report(attempt: NewAttempt, outcome: Outcome, *, before: int = 1, after: int | None = TARGET) -> Report:
    return Report(
        attempt_id=attempt.id,
        key=attempt.extend.key,
        gen=attempt.extend.wanted_gen,
        outcome=outcome,
        reason=f"because_{outcome.value}",
        target=attempt.target,
        before=Bytes(before),
        after=Bytes(after) if after is not None else None,
    )


def message(bench: Bench, *reports: Report, host: str = "h1", seq: int | None = None) -> HostMessage:
    bench.seq += 1
    seq = bench.seq if seq is None else seq
    return HostMessage(host=host, boot_id=bench.boot, seq=seq, sent_at=0.0, reports=reports)


def moves(taken: BatchResult) -> list[Move | None]:
    return [s.decision.move if s.decision is not None else None for s in taken.settled]


def test_forty_reports_of_one_batch_each_write_their_own_rows_and_no_other(bench: Bench) -> None:
    for _ in range(41):
        bench.arrive(ExtendKey(new_id(), new_id()))
    *given, other = [attempt for extend in bench.claim() for attempt in bench.dispatch(extend, "h1")]
    reports = [
        report(attempt, OUTCOMES[n % len(OUTCOMES)], before=n, after=TARGET + n) for n, attempt in enumerate(given)
    ]
    bench.reported.take([message(bench, *reports[:12]), message(bench, *reports[12:])])
    columns = (attempts.c.outcome, attempts.c.reason, attempts.c.size_before, attempts.c.size_after)
    with bench.database.engine.connect() as connection:
        rows = {i: tuple(said) for i, *said in connection.execute(sa.select(attempts.c.id, *columns))}
        states = {i: state for i, state in connection.execute(sa.select(extends.c.id, extends.c.state))}  # noqa: C416
        noted = sa.select(transitions.c.extend_id, transitions.c.outcome).where(transitions.c.outcome.isnot(None))
        notes = {i: outcome for i, outcome in connection.execute(noted)}  # noqa: C416
    assert rows.pop(other.id) == (None, None, None, None)
    assert states.pop(other.extend.id) == "dispatched"
    assert rows == {r.attempt_id: (r.outcome.value, r.reason, r.before, r.after) for r in reports}
    ends = {Outcome.RESIZED, Outcome.ALREADY, Outcome.REFUSED, Outcome.GUEST_OFF}
    assert states == {
        a.extend.id: "closed" if r.outcome in ends else "due" for a, r in zip(given, reports, strict=True)
    }
    assert notes == {a.extend.id: r.outcome.value for a, r in zip(given, reports, strict=True)}


def test_a_copy_of_a_report_in_the_same_batch_does_nothing(bench: Bench, key: ExtendKey) -> None:
    bench.arrive(key)
    (attempt,) = bench.dispatch(bench.claim()[0], "h1")
    said = report(attempt, Outcome.BUSY, after=None)
    taken = bench.reported.take([message(bench, said), message(bench, said)])
    assert moves(taken) == [Move.AGAIN, Move.IGNORE]


def test_of_two_hosts_the_one_that_has_not_the_guest_waits_for_the_other(bench: Bench, key: ExtendKey) -> None:
    bench.arrive(key)
    here, there = bench.dispatch(bench.claim()[0], "h1", "h2")
    first = bench.reported.take([message(bench, report(here, Outcome.NOT_HERE, after=None))])
    assert moves(first) == [Move.NOTE]
    second = bench.reported.take([message(bench, report(there, Outcome.RESIZED), host="h2")])
    assert moves(second) == [Move.CLOSE]


def test_when_both_hosts_have_not_the_guest_the_last_of_them_makes_it_due(bench: Bench, key: ExtendKey) -> None:
    bench.arrive(key)
    here, there = bench.dispatch(bench.claim()[0], "h1", "h2")
    taken = bench.reported.take(
        [
            message(bench, report(here, Outcome.NOT_HERE, after=None)),
            message(bench, report(there, Outcome.NOT_HERE, after=None), host="h2"),
        ]
    )
    assert moves(taken) == [Move.NOTE, Move.AGAIN]


def test_reports_of_a_new_run_say_that_the_last_run_is_gone(bench: Bench, key: ExtendKey) -> None:
    bench.arrive(key)
    bench.reported.take([message(bench)])
    bench.dispatch(bench.claim()[0], "h1")
    assert bench.claim() == []
    taken = bench.reported.take([dataclasses.replace(message(bench), boot_id=new_id())])
    assert taken.came_up == ["h1"]
    assert [extend.key for extend in bench.claim()] == [key], "what the last run had in hand is due"


def test_reports_after_a_silence_say_that_the_host_is_back(bench: Bench) -> None:
    bench.reported.take([message(bench)])
    bench.now += HOST_TIMEOUT / 2
    assert bench.reported.take([message(bench)]).came_up == []
    bench.now += HOST_TIMEOUT + 1
    assert bench.reported.take([message(bench)]).came_up == ["h1"]


def test_a_message_that_comes_late_does_not_turn_the_hosts_sequence_back(bench: Bench) -> None:
    bench.reported.take([message(bench, seq=9)])
    bench.reported.take([message(bench, seq=12)])
    bench.now += 1
    assert bench.reported.take([message(bench, seq=11)]).came_up == []
    with bench.database.engine.connect() as connection:
        assert connection.execute(sa.select(hosts.c.seq, hosts.c.heartbeat_at)).one() == (12, bench.now)


def test_an_end_in_the_same_batch_as_a_report_of_the_generation_before_stays_an_end(
    bench: Bench, key: ExtendKey
) -> None:
    """A run with kills showed a closed extend in the state due, with the outcome of the earlier report."""
    bench.has("h1", key)
    bench.arrive(key)
    [first] = bench.dispatch(bench.claim()[0], "h1")
    bench.arrive(key)
    [second] = bench.dispatch(bench.claim()[0], "h1")
    taken = bench.reported.take([message(bench, report(first, Outcome.RESIZED), report(second, Outcome.ALREADY))])
    assert moves(taken) == [Move.NEWER, Move.CLOSE]
    row = bench.database.read(lambda c: c.execute(sa.select(extends)).mappings().one())
    assert (row["state"], row["open"], row["outcome"]) == ("closed", None, Outcome.ALREADY.value)
