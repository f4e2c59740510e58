# SPDX-License-Identifier: Apache-2.0
"""Real guests under a libvirtd, which keeps secrets (an embedded one cannot), and a real Ceph for them."""

import base64
import os
import shutil
import signal
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
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
from hostagent.devices.image import QemuImages, RbdStrategy
from hostagent.extend import ExtendTools, extend
from hostagent.refresh import DeviceWait
from hostagent.settings import BrickSettings
from tests.conftest import missing
from tests.lab.ceph import CephCluster, RbdImage, have_ceph
from tests.lab.disks import Disk
from tests.lab.guest import Guest, new_guest
from tests.lab.hypervisor import have_hypervisor
from tests.lab.libvirtd import Libvirtd, have_libvirtd, private_libvirtd


@dataclass
class Host:
    """A libvirtd, a connection of the test's own to it, and what to make guests with."""

    daemon: Libvirtd
    connection: Any
    directory: Path

    def boot(self, *disks: Disk, bus: str = "virtio", panics: bool = False, hotplug: bool = False) -> Guest:
        """A running guest that has printed its disks' sizes."""
        guest = new_guest(disks, self.directory, bus=bus, panics=panics, hotplug=hotplug)
        self.connection.createXML(guest.xml(), 0)
        guest.wait_ready()
        return guest

    def define(self, *disks: Disk, bus: str = "virtio") -> Guest:
        """A guest that is off."""
        guest = new_guest(disks, self.directory, bus=bus)
        self.connection.defineXML(guest.xml())
        return guest

    def domain(self, guest: Guest) -> Any:
        """Its virDomain."""
        return self.connection.lookupByUUIDString(guest.server_id)

    def secret(self, value: bytes, *, usage: str, private: bool = False) -> str:
        """A secret of libvirt's; its id."""
        secret_id = str(uuid.uuid4())
        named = "<name>client.cinder</name>" if usage == "ceph" else "<volume>volume</volume>"
        made = self.connection.secretDefineXML(
            f"<secret ephemeral='yes' private='{'yes' if private else 'no'}'><uuid>{secret_id}</uuid>"
            f"<usage type='{usage}'>{named.replace('volume<', f'{secret_id}<').replace('.cinder', secret_id)}"
            "</usage></secret>"
        )
        made.setValue(value)
        return secret_id


@pytest.fixture(scope="session")
def host() -> Iterator[Host]:
    """One libvirtd for all tests here."""
    if not have_hypervisor() or not have_libvirtd():
        missing("libvirtd with QEMU, as root")
    from hostagent.drivers.libvirt.connect import open_libvirt  # noqa: PLC0415 - needs libvirt, which was looked for

    directory = Path(tempfile.mkdtemp(prefix="eb-"))
    try:
        with private_libvirtd(directory / "lv") as daemon:
            connection = open_libvirt(daemon.uri)
            yield Host(daemon, connection, directory)
            connection.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(autouse=True)
def _no_guest_outlives_its_test(host: Host) -> Iterator[None]:
    """An idle guest costs CPU."""
    yield
    for pid in host.daemon.pids().values():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def ceph() -> Iterator[CephCluster]:
    """One cluster for all tests here; ten seconds until it is up."""
    if not have_ceph():
        missing("Ceph (ceph-mon, ceph-osd) with QEMU's RBD driver")
    cluster = CephCluster()
    try:
        yield cluster.start()
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def ceph_key(host: Host, ceph: CephCluster) -> str:
    """The libvirt secret with the key of Ceph's user, readable as Ceph's documentation makes it."""
    return host.secret(base64.b64decode(ceph.key()), usage="ceph")


@pytest.fixture
def image(ceph: CephCluster, ceph_key: str) -> Callable[[int], RbdImage]:
    """Makes RBD volumes of so many bytes."""
    return lambda size: RbdImage(ceph, size, secret_id=ceph_key)


@dataclass
class Bench:
    """The agent's own tools for one thread, with short budgets."""

    tools: ExtendTools
    session: Any
    brick: BrickPool
    make: Callable[[], tuple[ExtendTools, Any]]

    def __call__(self, order: Order) -> Report:
        """Work on one order."""
        return extend(order, self.tools)


@pytest.fixture
def bench(host: Host, tmp_path: Path) -> Iterator[Bench]:
    """As a worker of the agent has them; `make` gives another worker's."""
    from hostagent.drivers.libvirt.session import Abandoned, Session  # noqa: PLC0415 - needs libvirt, which `host` looked for

    abandoned = Abandoned(4, Health(), AgentMetrics(CollectorRegistry()).abandoned)
    brick = BrickPool(
        BrickSettings(
            processes=1,
            limit=10.0,
            lock_limit=5.0,
            lock_path=str(tmp_path),
            use_multipath=False,
            root_helper="sudo",
        )
    )
    sessions: list[Session] = []

    def make() -> tuple[ExtendTools, Session]:
        session = Session(host.daemon.uri, limit=6.0, abandoned=abandoned)
        sessions.append(session)
        images = QemuImages(session.secret, limit=3.0)
        made = ExtendTools(
            hypervisor=session, strategies=[*all_strategies(brick), RbdStrategy(images)], images=images,
            sleep=threading.Event().wait, patience=DeviceWait(device_wait=0.4, nudge_every=0.2),
        )  # fmt: skip
        return made, session

    made, session = make()
    yield Bench(tools=made, session=session, brick=brick, make=make)
    brick.close()
    for one in sessions:
        one.close()
