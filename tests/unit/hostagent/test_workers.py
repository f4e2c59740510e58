# SPDX-License-Identifier: Apache-2.0
"""Orders: one owner per volume, several volumes at once, a report for each attempt."""

import threading
import time
import uuid
from collections.abc import Callable, Sequence

import pytest
from prometheus_client import CollectorRegistry

from bridge.core.extend import Bytes
from bridge.core.messages import Order, Report
from bridge.core.outcome import Outcome
from bridge.runtime.health import Health
from bridge.runtime.metrics import AgentMetrics
from hostagent import workers as worker
from hostagent.workers import FairTurn, Orders, Workers, work_off
from tests.lab.waiting import until
from tests.unit.hostagent.fakes import FakeTime, order

S1, S2 = "11111111-0000-0000-0000-000000000001", "11111111-0000-0000-0000-000000000002"
V1, V2 = "22222222-0000-0000-0000-000000000001", "22222222-0000-0000-0000-000000000002"
LONG = 120.0


def report_of(order: Order, outcome: Outcome = Outcome.RESIZED, after: int | None = None) -> Report:
    return Report(
        attempt_id=order.attempt_id, key=order.key, gen=order.gen, outcome=outcome, reason="x", target=order.target,
        after=Bytes(order.target if after is None else after),
    )  # fmt: skip


def test_of_what_gathered_the_newest_is_done_and_all_are_reported() -> None:
    """One extend for three orders; each attempt is settled under its own id and generation."""
    orders = [order(S1, V1, size, gen=gen) for gen, size in ((1, 10), (3, 30), (2, 20))]
    done = []

    def do(one: Order) -> Report:
        done.append(one.gen)
        return report_of(one)

    reports = work_off(orders, do)
    assert done == [3]
    assert [(r.attempt_id, r.gen, r.target) for r in reports] == [(o.attempt_id, o.gen, o.target) for o in orders]
    assert {r.outcome for r in reports} == {Outcome.RESIZED}
    assert reports[0].steps[0].name == "joined"


def test_an_older_order_for_more_is_done_as_well() -> None:
    """A success at 10 bytes says nothing about the 30 an older order asked for."""
    orders = [order(S1, V1, 30, gen=1), order(S1, V1, 10, gen=2)]
    done = []

    def do(one: Order) -> Report:
        done.append(one.target)
        return report_of(one)

    assert [r.after for r in work_off(orders, do)] == [30, 10]
    assert done == [10, 30]


def test_a_failure_ends_all_gathered_orders_of_the_volume() -> None:
    """Trying the older ones as well would be the same failure again."""
    orders = [order(S1, V1, 10, gen=1), order(S1, V1, 20, gen=2)]
    reports = work_off(orders, lambda one: report_of(one, Outcome.DEVICE_STALE, 5))
    assert [r.outcome for r in reports] == [Outcome.DEVICE_STALE] * 2


def test_two_guests_of_one_volume_are_each_done() -> None:
    """Multi-attach: one rescan would do, but each guest has to be told."""
    done = []

    def do(one: Order) -> Report:
        done.append(one.key.server_id)
        return report_of(one)

    work_off([order(S1, V1, 10), order(S2, V1, 10)], do)
    assert sorted(done) == [S1, S2]


def test_a_volume_has_one_owner_and_what_comes_meanwhile_waits_for_it() -> None:
    """Others take other volumes."""
    orders = Orders()
    orders.put([order(S1, V1, 1), order(S1, V2, 1)])
    first, second = orders.take(), orders.take()
    assert first is not None
    assert second is not None
    assert {first[0], second[0]} == {V1, V2}
    late = order(S1, V1, 2)
    orders.put([late])
    orders.done(V2)
    orders.done(V1)
    again = orders.take()
    assert again == (V1, [late])


def test_a_late_device_is_waited_for_until_others_wait_for_the_worker() -> None:
    """Its turn is ten seconds at least; alone it may take all the time it has."""
    orders, time_ = Orders(), FakeTime()
    orders.put([order(S1, V1, 1)])
    turn = FairTurn(Sleeps(time_), orders.crowded, 10, clock=time_.clock)
    orders.take()
    turn.begin()
    assert [turn.sleep(6) for _ in range(5)] == [False] * 5
    orders.put([order(S1, V1, 2)])
    assert not turn.sleep(6), "its own next order waits for it anyway"
    orders.put([order(S1, V2, 1)])
    assert turn.sleep(6)
    turn.begin()
    assert [turn.sleep(6), turn.sleep(6)] == [False, True]
    time_.stopping = True
    turn.begin()
    assert turn.sleep(6)


class Sleeps:
    """An event nobody sets, in fake time."""

    def __init__(self, time_: FakeTime) -> None:
        self._time = time_

    def wait(self, timeout: float) -> bool:
        return self._time.sleep(timeout)


def test_orders_above_the_limit_are_answered_as_busy(monkeypatch: object) -> None:
    """The attempt is settled, and the journal sends it again."""
    orders = Orders()
    original = worker.WAITING_MAX
    try:
        worker.WAITING_MAX = 2  # type: ignore[misc]
        extra = order(S1, V1, 9)
        assert orders.put([order(S1, V1, 1), order(S1, V2, 1), extra]) == [extra]
    finally:
        worker.WAITING_MAX = original  # type: ignore[misc]


def test_closing_drops_the_orders_that_wait() -> None:
    """The journal casts it again; nobody hangs in take()."""
    orders = Orders()
    orders.put([order(S1, V1, 1)])
    orders.close()
    assert orders.take() is None


class Tool:
    def __init__(self, do: Callable[[Order], Report]) -> None:
        self._do = do

    def __call__(self, order: Order) -> Report:
        return self._do(order)

    def close(self) -> None:
        """Nothing."""


def workers(
    count: int, do: Callable[[Order], Report], *, health: Health | None = None, stuck_after: float = 900.0
) -> tuple[Workers, list[Report], threading.Semaphore]:
    reports: list[Report] = []
    came = threading.Semaphore(0)

    def take(more: Sequence[Report]) -> None:
        reports.extend(more)
        for _ in more:
            came.release()

    made = Workers(
        count, make_tool=lambda: Tool(do), report=take, stopping=threading.Event(),
        metrics=AgentMetrics(CollectorRegistry()), health=health, stuck_after=stuck_after,
    )  # fmt: skip
    made.start()
    return made, reports, came


def test_one_hanging_volume_does_not_hold_another() -> None:
    """With two workers, the second volume is done while the first hangs."""
    hangs = threading.Event()

    def do(one: Order) -> Report:
        if one.key.volume_id == V1:
            hangs.wait(LONG)
        return report_of(one)

    made, reports, came = workers(2, do)
    made.submit([order(S1, V1, 1), order(S1, V2, 1)])
    assert came.acquire(timeout=LONG)
    assert [r.key.volume_id for r in reports] == [V2]
    hangs.set()
    assert came.acquire(timeout=LONG)
    made.stop()
    assert made.join(LONG)


def test_eight_hung_volumes_leave_the_ninth_its_usual_time() -> None:
    """More workers are started where none comes free, and end when there is nothing to do."""
    hangs = threading.Event()
    healthy = str(uuid.uuid4())

    def do(one: Order) -> Report:
        if one.key.volume_id != healthy:
            hangs.wait(LONG * 3)
        return report_of(one)

    made, reports, came = workers(8, do)
    made.submit([order(S1, str(uuid.uuid4()), 1) for _ in range(8)])
    made.submit([order(S2, healthy, 1)])
    assert came.acquire(timeout=LONG)
    assert [r.key.volume_id for r in reports] == [healthy]
    hangs.set()
    made.stop()
    assert made.join(LONG)


def test_a_worker_that_does_not_come_back_shows_and_later_orders_are_answered() -> None:
    """The volume keeps its owner: a late resize must not overtake a newer one."""
    hangs, health = threading.Event(), Health()
    began = []

    def do(one: Order) -> Report:
        began.append(one.gen)
        hangs.wait(LONG * 3)
        return report_of(one)

    made, reports, came = workers(1, do, health=health, stuck_after=0.1)
    made.submit([order(S1, V1, 1)])
    until(lambda: began, "the order is in hand")
    made.submit([order(S1, V1, 2, gen=2)])
    assert came.acquire(timeout=LONG)
    assert (reports[0].gen, reports[0].outcome) == (2, Outcome.BUSY)
    assert "hangs" in reports[0].detail
    assert not health.checks()["hostagent.workers"].ok
    hangs.set()
    assert came.acquire(timeout=LONG)
    until(health.ready, "the worker came back")
    assert began == [1]
    made.stop()
    assert made.join(LONG)


def test_orders_that_wait_for_a_worker_are_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many workers as there may be hang: the check counts from the first order that waits."""
    monkeypatch.setattr(worker, "MORE", 1)
    hangs, now = threading.Event(), [0.0]
    health = Health(clock=lambda: now[0])

    def do(one: Order) -> Report:
        hangs.wait(LONG * 3)
        return report_of(one)

    made, _reports, _came = workers(1, do, health=health)
    made.submit([order(S1, V1, 1), order(S1, V2, 1)])
    until(made.crowded, "one waits")
    assert "hostagent.orders" in health.checks()
    assert (made._orders.waited() or 0) >= 0
    hangs.set()
    made.stop()
    assert made.join(LONG)


def test_an_order_for_a_volume_in_work_waits_though_workers_are_free() -> None:
    """The second order of the volume starts after the first has ended, and not before."""
    goes_on, began = threading.Event(), []

    def do(one: Order) -> Report:
        began.append((one.key.volume_id, one.gen))
        if one.gen == 1:
            goes_on.wait(LONG)
        return report_of(one)

    made, _reports, came = workers(4, do)
    made.submit([order(S1, V1, 1, gen=1)])
    while not began:
        time.sleep(0.001)
    made.submit([order(S1, V1, 2, gen=2)])
    made.submit([order(S1, V2, 2, gen=2)])
    assert came.acquire(timeout=LONG)
    assert began == [(V1, 1), (V2, 2)]
    goes_on.set()
    for _ in range(2):
        assert came.acquire(timeout=LONG)
    assert began[2] == (V1, 2)
    made.stop()
    assert made.join(LONG)


def test_a_volume_is_never_worked_on_twice_at_once() -> None:
    """Whatever comes, from several threads, for few volumes: never two at once, and a report for each attempt."""
    busy: dict[str, int] = {V1: 0, V2: 0}
    worst = []
    lock = threading.Lock()

    def do(one: Order) -> Report:
        with lock:
            busy[one.key.volume_id] += 1
            worst.append(busy[one.key.volume_id])
        with lock:
            busy[one.key.volume_id] -= 1
        return report_of(one)

    made, reports, came = workers(6, do)
    orders = [order(S1, (V1, V2)[n % 2], n, gen=n) for n in range(400)]
    senders = [threading.Thread(target=lambda k=k: [made.submit([o]) for o in orders[k::4]]) for k in range(4)]
    for sender in senders:
        sender.start()
    for _ in orders:
        assert came.acquire(timeout=LONG)
    assert max(worst) == 1
    assert {r.attempt_id for r in reports} == {o.attempt_id for o in orders}
    made.stop()
    assert made.join(LONG)


def test_a_worker_outlives_a_bug_in_its_tool() -> None:
    """The next order is done by the same, only worker."""

    def do(one: Order) -> Report:
        if one.key.volume_id == V1:
            raise RuntimeError
        return report_of(one)

    made, reports, came = workers(1, do)
    made.submit([order(S1, V1, 1)])
    made.submit([order(S1, V2, 1)])
    assert came.acquire(timeout=LONG)
    assert [r.key.volume_id for r in reports] == [V2]
    made.stop()
    assert made.join(LONG)
