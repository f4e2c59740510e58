# SPDX-License-Identifier: Apache-2.0
"""No sequence of orders, in any interleaving, with any help from others, makes a disk smaller."""

import threading
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from bridge.core.inventory import GuestState
from bridge.core.messages import Order, Report
from bridge.core.outcome import THEN, Then
from bridge.runtime.metrics import AgentMetrics
from hostagent.devices.image import FileStrategy
from hostagent.extend import extend
from hostagent.workers import Orders, Workers, work_off
from tests.unit.hostagent.fakes import MIB, FakeDisk, FakeDomain, FakeHypervisor, order, tools

SIZES = st.one_of(st.integers(0, 600), st.sampled_from([1, 511, 513])).map(lambda n: n * MIB // 4)
ORDERS = st.tuples(st.just("order"), st.integers(0, 2), SIZES, st.integers(1, 5))
TAKE = st.tuples(st.just("take"), st.just(0), st.just(0), st.just(0))
OTHERS = st.tuples(st.just("other"), st.integers(0, 2), SIZES, st.just(0))
POWER = st.tuples(st.just("power"), st.just(0), st.just(0), st.integers(0, 1))


def guest() -> tuple[FakeHypervisor, str, list[FakeDisk]]:
    disks = [FakeDisk(), FakeDisk(driver_format="qcow2"), FakeDisk(capacity=7 * MIB, source=90 * MIB)]
    hypervisor = FakeHypervisor()
    return hypervisor, hypervisor.add(*disks), disks


def assert_never_smaller(disks: Sequence[FakeDisk]) -> None:
    for disk in disks:
        assert disk.sizes == sorted(disk.sizes)
        if disk.driver_format == "raw":
            assert disk.files == sorted(disk.files)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(ORDERS, ORDERS, TAKE, OTHERS, POWER), max_size=40))
def test_no_order_makes_a_disk_smaller(moves: list[tuple[str, int, int, int]]) -> None:
    """Orders of any size and generation, work taken at any time, disks grown by others in the worst moments."""
    hypervisor, server_id, disks = guest()
    waiting, made = Orders(), tools(hypervisor, FileStrategy())
    others: list[tuple[int, int]] = []
    sent: list[Order] = []
    reports: list[Report] = []

    def somebody_else(domain: FakeDomain) -> None:
        if others and domain.state is GuestState.ACTIVE:
            which, size = others.pop()
            disk = disks[which]
            disk.resize(max(size, disk.capacity, disk.source if disk.driver_format == "raw" else 0))

    hypervisor.between = somebody_else
    for move, which, size, gen in [*moves, *[("take", 0, 0, 0)] * 3]:
        if move == "order":
            sent.append(order(server_id, disks[which].volume_id, size, gen=gen))
            waiting.put([sent[-1], sent[-1]])
        elif move == "other":
            others.append((which, size))
        elif move == "power":
            hypervisor.domains[server_id].state = (GuestState.OFF, GuestState.ACTIVE)[gen]
        elif waiting._free:
            taken = waiting.take()
            assert taken is not None
            reports += work_off(taken[1], lambda one: extend(one, made))
            waiting.done(taken[0])
        assert_never_smaller(disks)
    assert {r.attempt_id for r in reports} == {o.attempt_id for o in sent}
    for report in reports:
        if THEN[report.outcome] is Then.CLOSE:
            assert (report.after or 0) >= report.target


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), SIZES, st.integers(1, 5)), min_size=1, max_size=40))
def test_no_disk_shrinks_with_real_threads(moves: list[tuple[int, int, int]]) -> None:
    """Four workers on three disks; every attempt is reported, every disk ends at the largest size asked for."""
    hypervisor, server_id, disks = guest()
    orders = [order(server_id, disks[which].volume_id, size, gen=gen) for which, size, gen in moves]
    came = threading.Semaphore(0)

    class Tool:
        def __init__(self) -> None:
            self._tools = tools(hypervisor, FileStrategy())

        def __call__(self, order: Order) -> Report:
            return extend(order, self._tools)

        def close(self) -> None:
            """Nothing."""

    def take(reports: Sequence[Report]) -> None:
        for _ in reports:
            came.release()

    workers = Workers(
        4, make_tool=Tool, report=take, stopping=threading.Event(), metrics=AgentMetrics(CollectorRegistry())
    )
    workers.start()
    for one in orders:
        workers.submit([one])
    for _ in orders:
        assert came.acquire(timeout=120)
    workers.stop()
    assert workers.join(120)
    assert_never_smaller(disks)
    for which, disk in enumerate(disks):
        assert disk.capacity >= max([size for index, size, _ in moves if index == which], default=0)
