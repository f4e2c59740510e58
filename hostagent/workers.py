# SPDX-License-Identifier: Apache-2.0
"""The orders of this host: one owner per volume, several volumes at once, a report for each attempt.

Orders for a volume that is being worked on wait for its owner. The orders that have gathered by then are one piece
of work. Of those for the same guest the newest is done, and its result settles the older ones.

Storage that hangs holds the worker of its volume. So more workers are started while volumes wait and none comes
free; they end once there is nothing to do. Checks show orders that wait too long and workers that do not come back.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final, Protocol

from bridge.core.extend import ExtendKey
from bridge.core.messages import Order, Report, StepReport
from bridge.core.outcome import THEN, Outcome, Then
from bridge.core.reasons import Reason
from bridge.runtime.health import Health
from bridge.runtime.metrics import AgentMetrics


class Stopping(Protocol):
    """threading.Event, as far as it is used."""

    def wait(self, timeout: float) -> bool:
        """Return whether the event is set, after so many seconds at most."""


class FairTurn:
    """The share of one worker's order in the time for waiting: without limit while no other volume waits.

    An array that shows its volumes' sizes late would otherwise hold every worker, and volumes of other storage
    would wait behind it. The order that gives way is cast again.
    """

    def __init__(
        self,
        stopping: Stopping,
        crowded: Callable[[], bool],
        fair: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`fair`: seconds that each order has in any case; `crowded`: whether volumes wait for a worker."""
        self._stopping = stopping
        self._crowded = crowded
        self._fair = fair
        self._clock = clock
        self._until = 0.0

    def begin(self) -> None:
        """Begin the turn of a new order."""
        self._until = self._clock() + self._fair

    def sleep(self, seconds: float) -> bool:
        """Return whether the order is to stop waiting: the agent ends, or others wait and it had its turn."""
        if self._stopping.wait(seconds):
            return True
        return self._clock() >= self._until and self._crowded()


LOG = logging.getLogger(__name__)

WAITING_MAX: Final = 10_000
"""Orders held at most; above it they are reported as `busy` and come again."""
MORE: Final = 4
"""Times [hostagent] workers, the most threads there are while others hang."""
WAITING_HEALTH: Final = "hostagent.orders"
STUCK_HEALTH: Final = "hostagent.workers"
_IDLE: Final = 120.0  # seconds without an order after which a worker ends, its connection with it
_QUEUE_PATIENCE: Final = 5.0  # seconds a volume may wait although workers come free
_WATCH_EVERY: Final = 0.25

Do = Callable[[Order], Report]


class Tool(Protocol):
    """The tool of a worker thread; one per thread."""

    def __call__(self, order: Order) -> Report:
        """Work on one order; does not raise."""

    def close(self) -> None:
        """Give back its connection."""


class Orders:
    """The waiting orders by volume, and the volumes that have an owner. For several threads; no effects."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[str, list[Order]] = {}
        self._free: deque[str] = deque()
        self._free_since: dict[str, float] = {}
        self._owned: set[str] = set()
        self._count = 0
        self._takers = 0
        self._closed = False

    def put(self, orders: Iterable[Order]) -> list[Order]:
        """Take orders; return those there is no room for."""
        refused = []
        with self._changed:
            for order in orders:
                if self._count >= WAITING_MAX or self._closed:
                    refused.append(order)
                    continue
                volume_id = order.key.volume_id
                if volume_id not in self._waiting:
                    self._waiting[volume_id] = []
                    if volume_id not in self._owned:
                        self._set_free(volume_id)
                self._waiting[volume_id].append(order)
                self._count += 1
            self._changed.notify_all()
        return refused

    def take(self, seconds: float | None = None) -> tuple[str, list[Order]] | None:
        """Wait for a volume without an owner, own it, and take all its orders. None: closed, or time is up."""
        with self._changed:
            self._takers += 1
            self._changed.wait_for(lambda: self._free or self._closed, seconds)
            self._takers -= 1
            if self._closed or not self._free:
                return None
            volume_id = self._free.popleft()
            self._free_since.pop(volume_id, None)
            self._owned.add(volume_id)
            orders = self._waiting.pop(volume_id)
            self._count -= len(orders)
            return volume_id, orders

    def own(self, volume_id: str) -> bool:
        """Own a volume outside of its orders; False where it has an owner, or orders that wait for one."""
        with self._changed:
            if volume_id in self._owned or volume_id in self._waiting:
                return False
            self._owned.add(volume_id)
            return True

    def crowded(self) -> bool:
        """Return whether volumes wait for an owner."""
        with self._changed:
            return bool(self._free)

    def waited(self) -> float | None:
        """Return the seconds for which the first volume in the queue has waited for an owner, None without one."""
        with self._changed:
            return time.monotonic() - self._free_since[self._free[0]] if self._free else None

    def wait_for_crowd(self) -> None:
        """Return once a volume has no owner or several are in hand; asleep otherwise, for as long as it takes."""
        with self._changed:
            self._changed.wait_for(lambda: self._free or self._owned or self._closed)

    def withdraw(self, volume_id: str) -> list[Order]:
        """Take the orders that wait for a volume's owner out of the queue."""
        with self._changed:
            if volume_id not in self._owned:
                return []
            orders = self._waiting.pop(volume_id, [])
            self._count -= len(orders)
            return orders

    def unserved(self) -> int:
        """Return how many volumes wait for an owner for whom no idle worker waits."""
        with self._changed:
            return len(self._free) - self._takers

    def closed(self) -> bool:
        """Return whether no order is given out any more."""
        with self._changed:
            return self._closed

    def _set_free(self, volume_id: str) -> None:
        self._free.append(volume_id)
        self._free_since[volume_id] = time.monotonic()

    def done(self, volume_id: str) -> None:
        """Let go of a volume; orders that came meanwhile are free to be taken."""
        with self._changed:
            self._owned.discard(volume_id)
            if volume_id in self._waiting:
                self._set_free(volume_id)
                self._changed.notify()

    def close(self) -> None:
        """Give out no more orders. Those that wait are dropped: the journal casts them again."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def work_off(orders: Sequence[Order], do: Do) -> list[Report]:
    """Do the orders that have gathered for one volume; return one report per order, in their order.

    Per guest the newest order (generation, then target) is done, and older ones get its result. An older order that
    asked for a larger size is done as well, if that result is a success.
    """
    by_guest: dict[ExtendKey, list[int]] = {}
    for index, order in enumerate(orders):
        by_guest.setdefault(order.key, []).append(index)
    reports: dict[int, Report] = {}
    for indexes in by_guest.values():
        newest_first = sorted(indexes, key=lambda i: (orders[i].gen, orders[i].target), reverse=True)
        lead = reports[newest_first[0]] = do(orders[newest_first[0]])
        for index in newest_first[1:]:
            order = orders[index]
            reports[index] = _settled_by(lead, order) if _settles(lead, order) else do(order)
    return [reports[index] for index in range(len(orders))]


def _settles(lead: Report, order: Order) -> bool:
    if THEN[lead.outcome] is not Then.CLOSE:
        return True
    return max(lead.target, lead.after or 0) >= order.target


def _settled_by(lead: Report, order: Order) -> Report:
    step = StepReport(name="joined", ok=True, seconds=0.0, detail=f"done with attempt {lead.attempt_id}")
    return replace(lead, attempt_id=order.attempt_id, gen=order.gen, target=order.target, steps=(step, *lead.steps))


class Workers:
    """A part: threads that work orders off and hand over the reports.

    Up to `count` threads are started, each when a volume finds none idle. While a volume waits and no thread has
    come free for `patience` seconds, up to MORE times as many are started. Each ends when it finds no order for a
    while.

    `stuck_after`: seconds after which an order in hand is said not to come back. Its volume keeps its owner, lest a
    late resize overtake a newer one, and further orders for it are reported as `busy`.
    """

    def __init__(
        self,
        count: int,
        *,
        make_tool: Callable[[], Tool],
        report: Callable[[Sequence[Report]], None],
        stopping: threading.Event,
        metrics: AgentMetrics,
        health: Health | None = None,
        stuck_after: float = 900.0,
        patience: float = 0.5,
    ) -> None:
        self._orders = Orders()
        self._make_tool = make_tool
        self._report = report
        self._stopping = stopping
        self._metrics = metrics
        self._count = count
        self._most = count * MORE
        self._stuck_after = stuck_after
        self._patience = patience
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._in_hand: dict[str, float] = {}
        self._came_free = 0.0
        self._watch = threading.Thread(target=self._watch_orders, name="workers-watch", daemon=True)
        if health is not None:
            health.due(WAITING_HEALTH, self._orders.waited, what="order without a worker")
            health.due(STUCK_HEALTH, self._oldest_in_hand, what="order in hand", limit=stuck_after)

    def submit(self, orders: Sequence[Order]) -> None:
        """Take orders and return at once."""
        self._metrics.in_flight.inc(len(orders))
        if refused := self._orders.put(orders):
            LOG.warning("%d orders are answered as busy, because %d orders wait already", len(refused), WAITING_MAX)
            self._hand_over(refused, [_busy(order, "this host has too many orders") for order in refused])
        for _ in range(self._orders.unserved()):
            self._start_thread(self._count)

    def crowded(self) -> bool:
        """Return whether volumes wait for a worker."""
        return self._orders.crowded()

    def own(self, volume_id: str) -> bool:
        """Own a volume outside of its orders; False where a worker has it."""
        return self._orders.own(volume_id)

    def done(self, volume_id: str) -> None:
        """Give back a volume taken by `own`."""
        self._orders.done(volume_id)

    def start(self) -> None:
        """Start to watch; orders start the workers."""
        self._watch.start()

    def stop(self) -> None:
        """Take no more orders and give up every wait."""
        self._stopping.set()
        self._orders.close()

    def join(self, seconds: float) -> bool:
        """Wait for the orders in hand."""
        deadline = time.monotonic() + seconds
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _start_thread(self, most: int) -> None:
        with self._lock:
            if len(self._threads) >= most:
                return
            thread = threading.Thread(target=self._run, name=f"worker-{len(self._threads)}", daemon=True)
            self._threads.add(thread)
        thread.start()

    def _run(self) -> None:
        """Work until the orders are closed, or none came for a while."""
        tool = self._make_tool()
        while (taken := self._orders.take(_IDLE)) is not None:
            volume_id, orders = taken
            with self._lock:
                self._in_hand[volume_id] = time.monotonic()
            try:
                self._hand_over(orders, work_off(orders, tool))
            except Exception:
                LOG.exception("volume %s: the worker failed", volume_id)
                self._metrics.in_flight.dec(len(orders))
            finally:
                with self._lock:
                    del self._in_hand[volume_id]
                    self._came_free = time.monotonic()
                self._orders.done(volume_id)
        tool.close()
        with self._lock:
            self._threads.discard(threading.current_thread())

    def _watch_orders(self) -> None:
        """Start workers where volumes wait, and answer for those whose worker does not come back."""
        while not self._orders.closed():
            self._orders.wait_for_crowd()
            if self._too_long(self._orders.waited() or 0.0):
                self._start_thread(self._most)
            for volume_id, seconds in self._stuck().items():
                orders = self._orders.withdraw(volume_id)
                words = f"an earlier order of this volume hangs since {seconds:.0f} s"
                self._hand_over(orders, [_busy(order, words) for order in orders])
            self._stopping.wait(_WATCH_EVERY)

    def _too_long(self, waited: float) -> bool:
        """Return whether a volume waits in vain: no worker has come free, or too few for the queue."""
        if waited <= self._patience:
            return False
        return time.monotonic() - self._came_free > self._patience or waited > _QUEUE_PATIENCE

    def _stuck(self) -> dict[str, float]:
        now = time.monotonic()
        with self._lock:
            return {volume: now - at for volume, at in self._in_hand.items() if now - at > self._stuck_after}

    def _oldest_in_hand(self) -> float | None:
        with self._lock:
            return time.monotonic() - min(self._in_hand.values()) if self._in_hand else None

    def _hand_over(self, orders: Sequence[Order], reports: Sequence[Report]) -> None:
        for order, report in zip(orders, reports, strict=True):
            self._metrics.orders.labels(report.outcome.value).inc()
            for step in report.steps:
                self._metrics.step_seconds.labels(step.name).observe(step.seconds)
            LOG.info(
                "server %s volume %s: %s (%s) target %d before %s after %s attempt %s request %s",
                report.key.server_id,
                report.key.volume_id,
                report.outcome.value,
                report.reason,
                report.target,
                report.before,
                report.after,
                report.attempt_id,
                order.global_request_id or order.request_id,
            )
        self._metrics.in_flight.dec(len(reports))
        self._report(reports)


def _busy(order: Order, detail: str) -> Report:
    return Report(
        attempt_id=order.attempt_id,
        key=order.key,
        gen=order.gen,
        outcome=Outcome.BUSY,
        reason=Reason.UNCERTAIN.value,
        target=order.target,
        detail=detail,
        traceparent=order.traceparent,
    )
