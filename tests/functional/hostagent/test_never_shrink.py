# SPDX-License-Identifier: Apache-2.0
"""No order makes a real disk smaller: a mark near its end, written before every step, is read back after it."""

import random
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import replace
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

pytestmark = pytest.mark.functional
MIB = 1 << 20
START = 64 * MIB
MARK = 4096
ROUNDS = 40


class Marks:
    """Bytes written through QEMU itself, as the guest would, at the disk's end of that time; read from outside."""

    def __init__(self, host: Host, guest: Guest, number: int) -> None:
        import libvirt_qemu  # noqa: PLC0415 - part of libvirt's binding, which `host` looked for

        self._command = libvirt_qemu.qemuMonitorCommand
        self._domain = host.domain(guest)
        self._device = f"/machine/peripheral/virtio-disk{number}/virtio-backend"
        self.target = f"vd{'ab'[number]}"
        self._format = ("raw", "qcow2")[number]
        self._path = guest.disks[number].path  # type: ignore[attr-defined]
        self._written: dict[int, int] = {}

    def write(self, pattern: int) -> int:
        """Mark the last bytes; the capacity now."""
        capacity = self.capacity()
        for command in (f"write -P {pattern} {capacity - MARK} {MARK}", "flush"):
            self._command(self._domain, f'qemu-io -d {self._device} "{command}"', 1)
        start = capacity - MARK
        self._written = {o: p for o, p in self._written.items() if o + MARK <= start} | {start: pattern}
        self.check()
        return capacity

    def check(self) -> None:
        """Every mark ever written is there."""
        reads = [f"read -P {pattern} {offset} {MARK}" for offset, pattern in self._written.items()]
        commands = [argument for read in reads for argument in ("-c", read)]
        file = ["-f", self._format, str(self._path)]
        done = subprocess.run(
            ["qemu-io", "-r", "-U", *commands, *file], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count(f"read {MARK}/{MARK} bytes") == len(reads), done.stdout + done.stderr
        assert "failed" not in done.stdout.lower(), done.stdout

    def capacity(self) -> int:
        """As QEMU has it."""
        return int(self._domain.blockInfo(self.target)[0])


def two_disks(host: Host, tmp_path: Path) -> tuple[Guest, Sequence[Any], list[Marks]]:
    disks: list[Disk] = [RawFile(tmp_path / "disk.raw", START), Qcow2File(tmp_path / "disk.qcow2", START)]
    guest = host.boot(*disks)
    return guest, disks, [Marks(host, guest, number) for number in (0, 1)]


def order(guest: Guest, volume_id: str, size: int, gen: int) -> Order:
    return Order(attempt_id=new_id(), key=ExtendKey(guest.server_id, volume_id), gen=gen, target=Bytes(size))


def test_the_marks_would_notice(host: Host, tmp_path: Path) -> None:
    """The same disks, resized behind the agent's back: both marks are lost, and this test's eyes are open."""
    guest, _disks, marks = two_disks(host, tmp_path)
    domain = host.domain(guest)
    for mark in marks:
        mark.write(0xA5)
        domain.blockResize(mark.target, START // 2, 1)
        domain.blockResize(mark.target, START, 1)
        with pytest.raises(AssertionError):
            mark.check()


def test_single_orders(host: Host, bench: Bench, tmp_path: Path) -> None:
    """Smaller, zero, one byte, equal, by a sector, duplicated, then a real extend, then all of it again."""
    guest, disks, marks = two_disks(host, tmp_path)
    sizes = [0, 1, 512, START // 2, START - 512, START - 1, START, START, START + 512, 2 * START, START, 0]
    for gen, size in enumerate(sizes):
        for disk, mark in zip(disks, marks, strict=True):
            before = mark.write(1 + gen)
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
        mark.write(0xA5)
        for size in (START // 2, START - 512):
            with pytest.raises(StepFailedError) as refused:
                resize(mark.target, size)
            assert (refused.value.outcome, refused.value.reason) == (Outcome.REFUSED, Reason.WOULD_SHRINK)
        assert mark.capacity() == START
        resize(mark.target, START)
        mark.check()


def test_a_negative_size_does_not_get_through_the_door(host: Host, tmp_path: Path) -> None:
    """There is no such order: reading it is refused."""
    guest, disks, _marks = two_disks(host, tmp_path)
    raw = {**order(guest, disks[0].volume_id, 1, 1).to_wire(), "target_bytes": -START}
    with pytest.raises(BadMessageError):
        Order.from_wire(raw)


@pytest.mark.parametrize("seed", [1, 2])
def test_random_orders_reordered_and_repeated(host: Host, bench: Bench, tmp_path: Path, seed: int) -> None:
    """Many at once through real workers, in any order, every one twice; the disk ends at the largest size."""
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
            mark.write(1 + number)
        sent = chance.sample(orders * 2, len(orders) * 2)
        workers.submit(sent[: len(sent) // 2])
        workers.submit(sent[len(sent) // 2 :])
        for _ in sent:
            assert came.acquire(timeout=120)
        for mark in marks:
            mark.check()
            assert 0 <= mark.capacity() - top < MARK  # a mark at an odd size makes the file whole pages
        largest = top
    workers.stop()
    assert workers.join(120)
    assert {report.outcome for report in reports} <= {Outcome.RESIZED, Outcome.ALREADY}
    assert [guest.sizes(target) for target in ("vda", "vdb")] == [sorted(guest.sizes(t)) for t in ("vda", "vdb")]
