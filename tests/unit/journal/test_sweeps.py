# SPDX-License-Identifier: Apache-2.0
"""One engine goes over the volumes at a time; one that dies is taken over from where it was; clocks may jump."""

from dataclasses import replace

import pytest

from bridge.journal.sweeps import Passes, SweepLease
from tests.unit.journal.conftest import Bench

INTERVAL, HOLD = 600.0, 60.0


@pytest.fixture
def engines(bench: Bench) -> tuple[Passes, Passes]:
    def engine() -> Passes:
        return Passes(bench.database, interval=INTERVAL, hold=HOLD, clock=lambda: bench.now)

    return engine(), engine()


def whole(engine: Passes, turn: SweepLease | None, **counts: int) -> None:
    assert turn is not None
    assert engine.end(replace(turn, counts=counts))


def test_of_two_engines_one_has_the_turn_and_the_next_pass_is_due_an_interval_after_its_start(
    bench: Bench, engines: tuple[Passes, Passes]
) -> None:
    one, two = engines
    turn = one.take()
    assert turn is not None
    assert two.take() is None
    bench.now += 50
    whole(one, turn, fine=3)
    assert one.take() is two.take() is None
    bench.now += INTERVAL - 51
    assert two.take() is None
    bench.now += 1
    assert two.take() is not None


def test_an_engine_that_dies_is_taken_over_from_its_last_page(bench: Bench, engines: tuple[Passes, Passes]) -> None:
    one, two = engines
    turn = one.take()
    assert turn is not None
    marker = "00000000-0000-4000-8000-000000000001"
    assert one.keep(replace(turn, marker=marker, counts={"fine": 500}))
    bench.now += HOLD - 1
    assert two.take() is None
    bench.now += 1
    taken = two.take()
    assert taken is not None
    assert (taken.marker, taken.counts, taken.started_at) == (marker, {"fine": 500}, turn.started_at)
    assert not one.keep(turn), "the first was slow, not dead: it learns that it is no longer its turn"
    assert not one.end(turn)


def test_an_engine_that_ends_leaves_its_pass_to_the_others_at_once_from_its_last_page(
    engines: tuple[Passes, Passes],
) -> None:
    one, two = engines
    turn = one.take()
    assert turn is not None
    marker = "00000000-0000-4000-8000-000000000001"
    assert one.keep(replace(turn, marker=marker, counts={"fine": 500}))
    two.leave()
    assert two.take() is None, "one that has no turn gives none away"
    one.leave()
    taken = two.take()
    assert taken is not None
    assert (taken.marker, taken.counts, taken.started_at) == (marker, {"fine": 500}, turn.started_at)


def test_an_engine_takes_up_its_own_pass_again(engines: tuple[Passes, Passes]) -> None:
    one, _ = engines
    assert one.take() is not None
    assert one.take() is not None


def test_the_last_whole_pass_is_known_to_every_engine(bench: Bench, engines: tuple[Passes, Passes]) -> None:
    one, two = engines
    assert two.last().ended_at is None
    bench.now += 5
    whole(one, one.take(), fine=7, behind=1)
    survey = two.last()
    assert (survey.ended_at, survey.counts) == (bench.now, {"fine": 7, "behind": 1})


@pytest.mark.parametrize("jump", [-10 * INTERVAL, 10 * INTERVAL])
def test_a_clock_that_jumps_ends_no_passes(jump: float, bench: Bench, engines: tuple[Passes, Passes]) -> None:
    one, two = engines
    whole(one, one.take())
    bench.now += jump
    assert two.take() is not None
    bench.now -= jump
    bench.now += HOLD + INTERVAL
    assert one.take() is not None
