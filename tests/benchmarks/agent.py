# SPDX-License-Identifier: Apache-2.0
"""The host agent: what it takes beside libvirt and os-brick, how 200 volumes share a host, what idling costs."""

import json
import sys
import threading
import time
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import CollectorRegistry

from bridge.core.cast import encode_cast
from bridge.core.extend import Bytes, ExtendKey, gib, new_id
from bridge.core.messages import Order, Report
from bridge.core.outcome import Outcome, Told
from bridge.runtime.health import Health
from bridge.runtime.metrics import AgentMetrics
from hostagent.brick.pool import BrickPool
from hostagent.devices.image import FileStrategy
from hostagent.domain import Disk
from hostagent.extend import ExtendTools, extend
from hostagent.knowledge import ToldDisks
from hostagent.refresh import DeviceWait
from hostagent.reporter import Outbox, Reporter
from hostagent.rpc import read_cast
from hostagent.settings import BrickSettings
from hostagent.telling import Teller
from hostagent.wiring import WorkerTool
from hostagent.workers import FairTurn, Orders, Workers
from tests.benchmarks.idle_agent import idle_rows
from tests.benchmarks.measure import Row, cpu, per_item
from tests.benchmarks.workspace import Workspace

_VOLUMES: Final = 200
_ROUNDS: Final = 5
_WORKERS: Final = 8
_TAKES: Final = 0.05  # seconds a volume's storage needs in the second bench
_FAIR: Final = 0.2  # seconds; [hostagent] crowded_wait
_LATE: Final = 10.0  # seconds; [hostagent] device_wait
_BRICK: Final = """\
import json, sys
sys.stdin.readline()
for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps({"id": request["id"], "size": 1 << 31}), flush=True)
"""
_XML: Final = (
    "<domain type='kvm'><name>instance</name><devices>"
    "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/volumes/{0}'/>"
    "<target dev='vda' bus='virtio'/><serial>{0}</serial></disk>{1}</devices></domain>"
)
_REST: Final = (
    "<interface type='ethernet'><mac address='fa:16:3e:00:00:01'/><model type='virtio'/></interface>" * 20
)


def rows(workspace: Workspace) -> Iterator[Row]:
    """The figures, as they come."""
    yield _own(workspace)
    yield _telling(workspace)
    yield _together(workspace)
    yield from idle_rows(workspace)


class _Domain:
    """A virDomain that costs nothing: one raw file of 1 GiB, or a device, XML of the size Nova's has."""

    def __init__(self, volume_id: str, *, block: bool = False) -> None:
        xml = _XML.format(volume_id, _REST)
        self._xml = xml.replace("type='file'", "type='block'").replace("file='/", "dev='/") if block else xml
        self._size = gib(1)

    def state(self, _flags: int) -> tuple[int, int]:
        return 1, 1

    def XMLDesc(self, _flags: int) -> str:  # noqa: N802 - libvirt's name
        return self._xml

    def blockInfo(self, _target: str) -> list[int]:  # noqa: N802 - libvirt's name
        return [self._size, 0, self._size]

    def jobStats(self) -> dict[str, int]:  # noqa: N802 - libvirt's name
        return {"type": 0}

    def connect(self) -> "_Domain":
        return self

    def getLibVersion(self) -> int:  # noqa: N802 - libvirt's name
        return 9_000_000

    def blockResize(self, _target: str, size: int, _flags: int) -> int:  # noqa: N802 - libvirt's name
        self._size = Bytes(size)
        return 0


class _Connection:
    """A virConnect with these domains."""

    def __init__(self, domains: Mapping[str, _Domain]) -> None:
        self._domains = domains

    def lookupByUUIDString(self, server_id: str) -> _Domain:  # noqa: N802 - libvirt's name
        return self._domains[server_id]

    def isAlive(self) -> int:  # noqa: N802 - libvirt's name
        return 1

    def close(self) -> None:
        """Nothing is held."""


class _Bus:
    """A broker that takes everything; counts the reports, and when each came."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.came: dict[str, float] = {}
        self.outcomes: set[str] = set()

    def publish(self, body: bytes) -> None:
        with self._changed:
            for report in json.loads(body)["reports"]:
                self.came[report["volume_id"]] = time.monotonic()
                self.outcomes.add(report["outcome"])
            self._changed.notify_all()

    def wait(self, volumes: Sequence[str]) -> None:
        """Until each has its report."""
        with self._changed:
            done = self._changed.wait_for(lambda: self.came.keys() >= set(volumes), 120)
        if not done:
            raise TimeoutError(f"{len(self.came)} of {len(volumes)} volumes are reported")


@dataclass(slots=True)
class OverBrick(FileStrategy):
    """Files, and a stand-in of os-brick's process asked for each; each takes `seconds`, the `hanging` `hang`.

    The `late` have a device that does not grow.
    """

    brick: BrickPool | None = None
    seconds: float = 0.0
    hanging: frozenset[str] = frozenset()
    hang: float = 3.0
    late: frozenset[str] = frozenset()

    def refresh(self, disk: Disk, connection: Mapping[str, Any] | None) -> int | None:  # type: ignore[override]
        if self.brick is not None:
            self.brick.extend("ISCSI", {"path": disk.source, "target_portal": "10.0.0.1:3260", "target_lun": 1})
        time.sleep(self.hang if disk.volume_id in self.hanging else self.seconds)
        return self.size(disk)

    def size(self, disk: Disk) -> int | None:  # type: ignore[override]
        return gib(1) if disk.volume_id in self.late else None


def run(keys: Sequence[ExtendKey], strategy: OverBrick) -> dict[str, float]:
    """Orders as they come from the bus, worked off, reported; when the report of each volume was sent."""
    from hostagent.drivers.libvirt.session import Abandoned, Session  # noqa: PLC0415 - libvirt may be missing on this machine

    connection = _Connection({key.server_id: _Domain(key.volume_id) for key in keys})
    metrics, health, stopping, bus = AgentMetrics(CollectorRegistry()), Health(), threading.Event(), _Bus()
    abandoned = Abandoned(16, health, metrics.abandoned)
    outbox = Outbox(metrics)

    def bench() -> WorkerTool:
        own = Session("bench:///", limit=20, abandoned=abandoned, connect=lambda _uri: connection)
        patience = DeviceWait(device_wait=_LATE, nudge_every=_LATE)
        turn = FairTurn(stopping, workers.crowded, _FAIR)
        tools = ExtendTools(hypervisor=own, strategies=[strategy], patience=patience, sleep=turn.sleep)

        def work(order: Order) -> Report:
            turn.begin()
            return extend(order, tools)

        return WorkerTool(own, work)

    workers = Workers(
        _WORKERS, make_tool=bench, report=outbox.add_reports, stopping=stopping, metrics=metrics
    )  # fmt: skip
    reporter = Reporter("bench", outbox, lambda: bus, heartbeat_interval=10, health=health)
    sender = threading.Thread(target=reporter.run, args=(stopping,))
    workers.start()
    sender.start()
    workers.submit(read_cast(encode_cast([_order(key) for key in keys])))
    bus.wait([key.volume_id for key in keys])
    workers.stop()
    workers.join(10)
    outbox.close()
    sender.join(10)
    assert bus.outcomes - {Outcome.DEVICE_STALE.value} == {Outcome.RESIZED.value}, bus.outcomes
    return bus.came


def _order(key: ExtendKey) -> Order:
    connection = {
        "driver_volume_type": "nfs",
        "data": {"target_portal": "10.0.0.1:3260", "target_iqn": "iqn.2010-10.org.openstack:v", "target_lun": 1},
    }
    return Order(attempt_id=new_id(), key=key, gen=1, target=gib(2), connection=connection, request_id="req-x")


def some_keys(count: int) -> list[ExtendKey]:
    """Disks of guests, one each."""
    return [ExtendKey(str(uuid.uuid4()), str(uuid.uuid4())) for _ in range(count)]


def _own(workspace: Workspace) -> Row:
    count = workspace.count(_VOLUMES)
    settings = BrickSettings(
        processes=2, limit=30, lock_limit=30, lock_path=str(workspace.directory), use_multipath=False,
        root_helper="sudo",
    )  # fmt: skip
    brick = BrickPool(settings, command=[sys.executable, "-c", _BRICK])
    brick.start()
    strategy = OverBrick(brick=brick)
    run(some_keys(24), strategy)
    spent = 0.0
    for _ in range(_ROUNDS):
        keys = some_keys(count)
        with cpu() as used:
            run(keys, strategy)
        spent += used()
    brick.close()
    order, xml = json.dumps(_order(keys[0]).to_wire()), _XML.format(keys[0].volume_id, _REST)
    bare = per_item(lambda: [_bare(order, xml) for _ in range(count)], count)
    return Row(
        what="host agent: order to report, beside libvirt and os-brick",
        value=spent / _ROUNDS / count * 1e6, budget=5000, bare=bare, bare_what="json and the domain's XML read",
    )  # fmt: skip


def _telling(workspace: Workspace) -> Row:
    """Tell each guest of the one disk it has, as after the agent's start."""
    from hostagent.drivers.libvirt.session import Abandoned, Session  # noqa: PLC0415 - libvirt may be missing on this machine

    keys = some_keys(workspace.count(_VOLUMES))
    connection = _Connection({key.server_id: _Domain(key.volume_id, block=True) for key in keys})
    abandoned = Abandoned(16, Health(), AgentMetrics(CollectorRegistry()).abandoned)
    session = Session("bench:///", limit=20, abandoned=abandoned, connect=lambda _uri: connection)
    told = ToldDisks()
    teller = Teller(
        session, told, owners=Orders(), images=None, hidden=lambda _disk: 0, on_told=lambda _servers: None
    )  # fmt: skip
    domains = [session.domain(key.server_id) for key in keys]
    spent = 0.0
    for _ in range(_ROUNDS):
        with cpu() as used:
            for domain in domains:
                assert domain is not None
                teller.want(domain.server_id, domain.disks)
                teller.tell_one(domain.server_id)
        spent += used()
    noted = sum(
        told.judge_disk(domain, disk, gib(1)) is Told.YES
        for domain in domains if domain is not None
        for disk in domain.disks
    )  # fmt: skip
    assert noted == len(keys), noted
    session.close()
    xml = _XML.format(keys[0].volume_id, _REST)
    bare = per_item(lambda: [ET.fromstring(xml) for _ in keys], len(keys))
    return Row(
        what="host agent: a disk told of its size, beside libvirt", value=spent / _ROUNDS / len(keys) * 1e6,
        budget=2000, bare=bare, bare_what="the domain's XML read",
    )  # fmt: skip


def _bare(order: str, xml: str) -> None:
    json.dumps(json.loads(order))
    ET.fromstring(xml)


def _together(workspace: Workspace) -> Row:
    """The last of those that are well, beside what is possible: each late one has its fair turn, and the two that
    hang hold their workers."""
    keys = some_keys(_VOLUMES)
    ids = [key.volume_id for key in keys]
    hanging, late = frozenset(ids[:2]), frozenset(ids[2:22])
    began = time.monotonic()
    came = run(keys, OverBrick(seconds=_TAKES, hanging=hanging, late=late))
    well = [at for volume_id, at in came.items() if volume_id not in hanging | late]
    possible = ((len(well) + len(late)) * _TAKES + len(late) * _FAIR) / (_WORKERS - len(hanging))
    return Row(
        what=f"host agent: {_VOLUMES} volumes at once, 2 hang, {len(late)} are late: the last other",
        value=(max(well) - began) * 1000, budget=possible * 1000 * 1.5, bare=possible * 1000,
        bare_what="the storage alone", unit="ms",
    )  # fmt: skip
