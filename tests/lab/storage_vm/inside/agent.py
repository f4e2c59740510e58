# SPDX-License-Identifier: Apache-2.0
"""Our host agent as its process wires it, with a list in place of the broker: order in, report out."""

import queue
import threading
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry

from bridge.core.extend import Bytes, ExtendKey
from bridge.core.messages import Order, Report
from bridge.runtime.health import Health
from bridge.runtime.metrics import AgentMetrics
from hostagent.brick_pool import BrickPool
from hostagent.devices import all_strategies
from hostagent.extend import Patience, Tools, extend
from hostagent.hypervisor import Abandoned, Session
from hostagent.settings import BrickSettings
from hostagent.wiring import Bench
from hostagent.worker import Workers
from tests.lab.storage_vm.inside.targets import STATE


class Agent:
    """Two workers, one os-brick process."""

    def __init__(self, uri: str, *, multipath: bool) -> None:
        self._reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self._stopping = threading.Event()
        metrics = AgentMetrics(CollectorRegistry())
        abandoned = Abandoned(4, Health(), metrics.abandoned)
        self.brick = BrickPool(
            BrickSettings(processes=1, limit=120, lock_path=str(STATE), use_multipath=multipath, root_helper="sudo")
        )

        def bench() -> Bench:
            session = Session(uri, limit=30, abandoned=abandoned)
            tools = Tools(
                hypervisor=session, strategies=all_strategies(self.brick), sleep=self._stopping.wait,
                patience=Patience(device_wait=6, nudge_every=2),
            )  # fmt: skip
            return Bench(session, lambda order: extend(order, tools))

        self._workers = Workers(2, make_tool=bench, report=self._take, stopping=self._stopping, metrics=metrics)

    def start(self) -> None:
        """The os-brick process and the threads."""
        self.brick.start()
        self._workers.start()

    def extend(self, server_id: str, volume_id: str, size: int, connection: Mapping[str, Any] | None) -> Report:
        """One order and its report."""
        order = Order(
            attempt_id=str(uuid.uuid4()), key=ExtendKey(server_id, volume_id), gen=1, target=Bytes(size),
            connection=connection,
        )  # fmt: skip
        self._workers.submit([Order.from_wire(order.to_wire())])
        return self._reports.get(timeout=90)

    def _take(self, reports: Sequence[Report]) -> None:
        for report in reports:
            self._reports.put(report)
