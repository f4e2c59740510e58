# SPDX-License-Identifier: Apache-2.0
"""The wall clock is set back or forward by an hour: nothing waits for it, and due work still counts."""

import pytest

from bridge.core.extend import ExtendKey
from bridge.core.outcome import Outcome
from bridge.journal.watch import DueWatch
from tests.unit.journal.conftest import HOST_TIMEOUT, REPORT_WITHIN, Bench

_HOUR = 3600.0
_HORIZON = 1200.0
jumps = pytest.mark.parametrize("jump", [-_HOUR, _HOUR])


@pytest.fixture
def bench(bench: Bench) -> Bench:
    bench.work._horizon = _HORIZON
    return bench


@jumps
def test_an_extend_that_waits_for_its_retry_is_due(bench: Bench, key: ExtendKey, jump: float) -> None:
    bench.has("host-1", key)
    bench.arrive(key)
    (extend,) = bench.claim()
    (attempt,) = bench.dispatch(extend, "host-1")
    bench.report(attempt, Outcome.BUSY, after=None)
    assert bench.claim() == []
    bench.now += jump
    assert [one.key for one in bench.claim()] == [key]


@jumps
def test_an_order_whose_agent_died_is_sent_again(bench: Bench, key: ExtendKey, jump: float) -> None:
    bench.has("host-1", key)
    bench.arrive(key)
    (extend,) = bench.claim()
    bench.dispatch(extend, "host-1")
    bench.now += jump
    (again,) = bench.claim()
    assert again.unreported


@jumps
def test_what_is_due_counts_for_readiness(bench: Bench, key: ExtendKey, jump: float) -> None:
    """Also where no engine claims it, because the only one stands still."""
    due = DueWatch(horizon=_HORIZON, clock=lambda: bench.now)
    bench.arrive(key)
    bench.claim()  # due again in REPORT_WITHIN seconds
    bench.database.read(due.look)
    assert due.oldest() is None
    bench.now += jump
    bench.database.read(due.look)
    assert due.oldest() is not None


@jumps
def test_a_host_is_there_again_with_its_next_sign_of_life(bench: Bench, key: ExtendKey, jump: float) -> None:
    bench.has("host-1", key)
    bench.arrive(key)
    bench.now += jump
    bench.has("host-1", key)
    (extend,) = bench.claim()
    (place,) = bench.work.locate([extend], host_timeout=HOST_TIMEOUT)[key.server_id]
    assert place.fresh
    assert REPORT_WITHIN < _HORIZON
