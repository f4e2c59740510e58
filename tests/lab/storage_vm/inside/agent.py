# SPDX-License-Identifier: Apache-2.0
"""Our host agent with a configuration file of its own and a list in place of the broker: order in, report out."""

import queue
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from prometheus_client import CollectorRegistry

from bridge.core.encryption import Encryption
from bridge.core.extend import Bytes, ExtendKey
from bridge.core.messages import Order, Report
from bridge.runtime import config
from bridge.runtime.health import Health
from bridge.runtime.metrics import AgentMetrics
from hostagent.devices.guard import RememberedDevices
from hostagent.devices.length import length_of
from hostagent.drivers.base import DriverTools
from hostagent.extend import ExtendTools, extend
from hostagent.hostcheck import facts_of
from hostagent.identity import DeviceMemory
from hostagent.refresh import DeviceWait
from hostagent.settings import hostagent_groups, hostagent_settings
from hostagent.storage_reads import StorageReads
from hostagent.wiring import WorkerTool, this_host
from hostagent.workers import Workers
from tests.lab.key_manager import BACKEND
from tests.lab.storage_vm.inside.targets import STATE

_REPORTS: Final = 1200.0  # seconds: for a report that never comes; on a busy machine the VM is ten times slower
KEYS: Final = STATE / "keys"


class Agent:
    """Two workers, one os-brick process; volumes' keys from KEYS."""

    def __init__(self, name: str, uri: str, *, multipath: bool) -> None:
        file = STATE / f"{name}.conf"
        file.write_text(
            f"[hostagent]\nhost = {name}\nlibvirt_uri = {uri}\nlibvirt_limit = 60\nbrick_processes = 1\n"
            f"use_multipath = {multipath}\nlock_path = {STATE}\nstate_path = {STATE / name}\n"
            "device_wait = 6\nnudge_every = 2\n"
            f"[key_manager]\nbackend = {BACKEND}\nfile = {KEYS}\n"
        )
        conf = config.load(name, hostagent_groups(), ["--config-file", str(file)], description=name)
        settings = config.read(conf, hostagent_settings)
        self._reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        stopping, metrics = threading.Event(), AgentMetrics(CollectorRegistry())
        self._reads = StorageReads(limit=60, most=8, health=Health(), gauge=metrics.storage_reads)
        outside = this_host(settings)
        hypervisor = outside.open_hypervisor(
            DriverTools(
                health=Health(), hanging=metrics.abandoned, file_size=partial(length_of, self._reads),
                facts=facts_of(settings),
            )
        )  # fmt: skip
        patience = DeviceWait(device_wait=settings.device_wait, nudge_every=settings.nudge_every)

        def bench() -> WorkerTool:
            own = hypervisor.session()

            def work(order: Order) -> Report:
                encryptor = outside.encryptor if self._keys else None
                return extend(order, replace(tools, encryptor=encryptor, guard=self._guard))

            tools = ExtendTools(
                hypervisor=own, strategies=outside.strategies, patience=patience, sleep=stopping.wait
            )
            return WorkerTool(own, work)

        self._session = hypervisor.session()
        workers = Workers(2, make_tool=bench, report=self._take, stopping=stopping, metrics=metrics)
        self._parts = [*outside.parts, *hypervisor.parts, workers]
        self._submit = workers.submit
        self._keys = True
        self._state = settings.state_path
        self.restart()

    def restart(self) -> None:
        """What the next run of the agent knows of its disks is what lies in its directory."""
        self._guard = RememberedDevices(DeviceMemory(self._state, Health()), self._reads)

    def look(self, server_id: str) -> None:
        """What the inventory does at an event of a guest: it takes note of the guest's disks."""
        domain = self._session.domain(server_id)
        assert domain is not None
        self._guard.observe(domain)
        self._guard.write_observed()

    def start(self) -> None:
        """The os-brick process and the threads."""
        for part in self._parts:
            part.start()

    def extend(
        self,
        server_id: str,
        volume_id: str,
        size: int,
        connection: Mapping[str, Any] | None,
        *,
        encryption: Encryption | None = None,
        keys: bool = True,
    ) -> Report:
        """One order and its report. `keys`: as if the operator had opted in to them, or had not."""
        self._keys = keys
        order = Order(
            attempt_id=str(uuid.uuid4()), key=ExtendKey(server_id, volume_id), gen=1, target=Bytes(size),
            connection=connection, encryption=encryption,
        )  # fmt: skip
        self._submit([Order.from_wire(order.to_wire())])
        return self._reports.get(timeout=_REPORTS)

    def _take(self, reports: Sequence[Report]) -> None:
        for report in reports:
            self._reports.put(report)
