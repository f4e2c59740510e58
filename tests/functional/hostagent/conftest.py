# SPDX-License-Identifier: Apache-2.0
"""Real guests in a libvirt inside the test process: one embed root per process is what libvirt allows."""

import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from bridge.core.messages import Order, Report
from bridge.runtime.health import Health
from bridge.runtime.metrics import AgentMetrics
from hostagent.brick.pool import BrickPool
from hostagent.devices import all_strategies
from hostagent.extend import ExtendTools, extend
from hostagent.refresh import DeviceWait
from hostagent.settings import BrickSettings
from tests.conftest import missing
from tests.lab.disks import Disk
from tests.lab.guest import Guest, new_guest
from tests.lab.hypervisor import Hypervisor, have_hypervisor, open_here, private_hypervisor

GIB = 1 << 30


@dataclass
class Host:
    """The hypervisor, a connection of the test's own to it, and what to make guests with."""

    hypervisor: Hypervisor
    connection: Any
    directory: Path

    def boot(self, *disks: Disk) -> Guest:
        """A running guest that has printed its first size."""
        guest = new_guest(disks, self.directory)
        self.connection.createXML(guest.xml(), 0)
        guest.wait_size(disks[0].size)  # type: ignore[attr-defined]
        return guest

    def define(self, *disks: Disk) -> Guest:
        """A guest that is off."""
        guest = new_guest(disks, self.directory)
        self.connection.defineXML(guest.xml())
        return guest

    def domain(self, guest: Guest) -> Any:
        """Its virDomain."""
        return self.connection.lookupByUUIDString(guest.server_id)


@pytest.fixture(scope="session")
def host() -> Iterator[Host]:
    """One libvirt for all tests of the session."""
    if not have_hypervisor():
        missing("libvirt with QEMU")
    directory = Path(tempfile.mkdtemp(prefix="eb-"))
    try:
        with private_hypervisor(directory / "lv") as hypervisor:
            connection = open_here(hypervisor)
            yield Host(hypervisor, connection, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(autouse=True)
def _no_guest_outlives_its_test(host: Host) -> Iterator[None]:
    """An idle guest costs CPU; destroying one through libvirt costs seconds."""
    yield
    host.hypervisor.destroy_leftovers()


@dataclass
class Bench:
    """The agent's own tools for one thread, with short budgets."""

    tools: ExtendTools
    brick: BrickPool
    health: Health
    session: Any

    def __call__(self, order: Order) -> Report:
        """Work on one order."""
        return extend(order, self.tools)


@pytest.fixture
def bench(host: Host, tmp_path: Path) -> Iterator[Bench]:
    """A session and an os-brick process, as a worker has them."""
    from hostagent.drivers.libvirt.session import Abandoned, Session  # noqa: PLC0415 - needs libvirt, which `host` looked for

    health = Health()
    abandoned = Abandoned(4, health, AgentMetrics(CollectorRegistry()).abandoned)
    session = Session(host.hypervisor.uri, limit=2.0, abandoned=abandoned)
    settings = BrickSettings(
        processes=1, limit=6.0, lock_limit=1.0, lock_path=str(tmp_path), use_multipath=False, root_helper="sudo"
    )
    brick = BrickPool(settings)
    made = ExtendTools(
        hypervisor=session, strategies=all_strategies(brick), sleep=threading.Event().wait,
        patience=DeviceWait(device_wait=0.4, nudge_every=0.2),
    )  # fmt: skip
    yield Bench(tools=made, brick=brick, health=health, session=session)
    brick.close()
    session.close()
