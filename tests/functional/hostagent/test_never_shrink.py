# SPDX-License-Identifier: Apache-2.0
"""No order makes a real disk smaller: a mark in its last page, written before every step, is read back after it."""

import random
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from bridge.core.extend import Bytes, ExtendKey, new_id
from bridge.core.messages import Order, Report
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from bridge.core.wire import BadMessageError
from bridge.runtime.metrics import AgentMetrics
from hostagent.errors import StepFailedError
from hostagent.extend import extend
from hostagent.workers import Workers
from tests.functional.hostagent.conftest import Bench, Host
from tests.lab.disks import Disk, Qcow2File, RawFile
from tests.lab.guest import Guest
from tests.lab.size_walk import MIB, START, LibvirtVolume

pytestmark = pytest.mark.functional
ROUNDS = 40


def two_disks(host: Host, tmp_path: Path) -> tuple[Guest, Sequence[Any], list[LibvirtVolume]]:
    disks: list[Disk] = [RawFile(tmp_path / "disk.raw", START), Qcow2File(tmp_path / "disk.qcow2", START)]
    guest = host.boot(*disks)
    domain, chance = partial(host.domain, guest), random.Random(0)
    return guest, disks, [LibvirtVolume(domain, number, disk, chance) for number, disk in enumerate(disks)]


def order(guest: Guest, volume_id: str, size: int, gen: int) -> Order:
    return Order(attempt_id=new_id(), key=ExtendKey(guest.server_id, volume_id), gen=gen, target=Bytes(size))


def test_the_marks_notice_a_disk_that_is_cut(host: Host, tmp_path: Path) -> None:
    _guest, _disks, marks = two_disks(host, tmp_path)
    assert [mark.notices_a_cut() for mark in marks] == [True, True]


def test_single_orders_of_any_size_cut_nothing(host: Host, bench: Bench, tmp_path: Path) -> None:
    """Smaller, zero, one byte, equal, by a sector, duplicated, then a real extend, then all of it again."""
    guest, disks, marks = two_disks(host, tmp_path)
    sizes = [0, 1, 512, START // 2, START - 512, START - 1, START, START, START + 512, 2 * START, START, 0]
    for gen, size in enumerate(sizes):
        for disk, mark in zip(disks, marks, strict=True):
            before = mark.mark(1 + gen)
            report = bench(order(guest, disk.volume_id, size, gen))
            assert report.outcome is (Outcome.RESIZED if size > before else Outcome.ALREADY)
            assert mark.capacity() == max(before, size)
            mark.check()


def test_libvirt_itself_refuses_a_smaller_size_where_it_has_the_flag(
    host: Host, bench: Bench, tmp_path: Path
) -> None:
    """Behind our own guard, for a disk that grows after the guard's look: VIR_DOMAIN_BLOCK_RESIZE_EXTEND."""
    guest, _disks, marks = two_disks(host, tmp_path)
    hypervisor, server = bench.tools.hypervisor, guest.server_id
    domain = hypervisor.domain(server)
    assert domain is not None
    found = {disk.target: disk for disk in domain.disks}

    def resize(target: str, size: int) -> None:
        hypervisor.on_guest(server, lambda handle, _wanted: handle.resize(found[target], size))

    if not hypervisor.on_guest(server, lambda handle, _wanted: handle.never_shrinks):
        pytest.skip("this libvirt is older than 12.3")
    for mark in marks:
        mark.mark(0xA5)
        for size in (START // 2, START - 512):
            with pytest.raises(StepFailedError) as refused:
                resize(mark.target, size)
            assert (refused.value.outcome, refused.value.reason) == (Outcome.REFUSED, Reason.WOULD_SHRINK)
        assert mark.capacity() == START
        resize(mark.target, START)
        mark.check()


def test_an_order_of_a_negative_size_is_refused_when_it_is_read(host: Host, tmp_path: Path) -> None:
    guest, disks, _marks = two_disks(host, tmp_path)
    raw = {**order(guest, disks[0].volume_id, 1, 1).to_wire(), "target_bytes": -START}
    with pytest.raises(BadMessageError):
        Order.from_wire(raw)


@pytest.mark.parametrize("seed", [1, 2])
def test_orders_of_many_workers_cut_nothing(host: Host, bench: Bench, tmp_path: Path, seed: int) -> None:
    """Every order comes twice. The disk ends at the largest size."""
    guest, disks, marks = two_disks(host, tmp_path)
    from hostagent.drivers.libvirt.session import Abandoned, Session  # noqa: PLC0415 - needs libvirt, which `host` looked for

    abandoned = Abandoned(4, bench.health, AgentMetrics(CollectorRegistry()).abandoned)
    chance = random.Random(seed)
    came = threading.Semaphore(0)
    reports: list[Report] = []

    class Tool:
        def __init__(self) -> None:
            self._session = Session(host.hypervisor.uri, limit=10, abandoned=abandoned)
            self._tools = replace(bench.tools, hypervisor=self._session)

        def __call__(self, order: Order) -> Report:
            return extend(order, self._tools)

        def close(self) -> None:
            self._session.close()

    def take(more: Sequence[Report]) -> None:
        reports.extend(more)
        for _ in more:
            came.release()

    workers = Workers(
        2, make_tool=Tool, report=take, stopping=threading.Event(), metrics=AgentMetrics(CollectorRegistry())
    )
    workers.start()
    largest = START
    for number in range(ROUNDS):
        top = largest + chance.choice([0, 512, MIB, 4 * MIB])
        sizes = [0, chance.randrange(top), chance.randrange(START), largest, top]
        orders = [order(guest, disk.volume_id, size, chance.randrange(100)) for disk in disks for size in sizes]
        for mark in marks:
            mark.mark(1 + number)
        sent = chance.sample(orders * 2, len(orders) * 2)
        workers.submit(sent[: len(sent) // 2])
        workers.submit(sent[len(sent) // 2 :])
        for _ in sent:
            assert came.acquire(timeout=120)
        for mark in marks:
            mark.check()
            assert mark.capacity() == top
        largest = top
    workers.stop()
    assert workers.join(120)
    assert {report.outcome for report in reports} <= {Outcome.RESIZED, Outcome.ALREADY}
    assert [guest.sizes(target) for target in ("vda", "vdb")] == [sorted(guest.sizes(t)) for t in ("vda", "vdb")]
