# SPDX-License-Identifier: Apache-2.0
"""A part of the agent that stands still without an error is not ready: each of its good words has an end."""

import os
import threading
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from bridge.core.extend import ExtendKey, new_id
from bridge.runtime.health import LIMIT, Health
from bridge.runtime.metrics import AgentMetrics
from hostagent import identity
from hostagent.drivers.libvirt.session import HEALTH as CALLS
from hostagent.drivers.libvirt.session import Abandoned
from hostagent.identity import AttachEvidence, DeviceMemory
from hostagent.inventory import InventoryKeeper, Touched
from tests.lab.waiting import until
from tests.unit.clock import PlayedClock
from tests.unit.hostagent.fakes import FakeDisk, FakeHypervisor
from tests.unit.hostagent.test_inventory import Libvirt

CHECK = "hostagent.libvirt"
RUN = AttachEvidence(run="1")


def test_libvirt_is_ready_as_long_as_it_is_looked_at(
    health: Health, clock: PlayedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two inventories, which may be ten minutes apart, the looks whether the connection stands count."""
    monkeypatch.setattr("hostagent.inventory._LOOK_ALIVE", 0.001)
    libvirt, stop, full = Libvirt(FakeHypervisor()), threading.Event(), threading.Event()
    libvirt.hypervisor.add(FakeDisk())
    keeper = InventoryKeeper(
        libvirt, tell=lambda _: full.set(), touched=Touched(), volume_types={}, interval=1000, health=health,
        check=CHECK,
    )  # fmt: skip
    thread = threading.Thread(target=keeper.run, args=(stop,), daemon=True)
    thread.start()
    assert full.wait(30)
    for _ in range(3):
        clock.now += LIMIT + 1
        until(lambda: health.checks()[CHECK].ok, "a look has renewed the word", seconds=30)
    stop.set()
    thread.join(30)
    clock.now += LIMIT + 1
    assert not health.checks()[CHECK].ok, "no look comes any more"


def test_a_write_of_the_identities_that_does_not_return_is_said(
    tmp_path: Path, health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen disk; the callers wait, and the check must not wait with them."""
    monkeypatch.setattr(identity, "_WRITE_LIMIT", 0.0)
    memory = DeviceMemory(tmp_path, health)
    assert health.checks()[identity.HEALTH].ok
    go, real = threading.Event(), os.replace

    def frozen(*paths: str) -> None:
        go.wait(30)
        real(*paths)

    monkeypatch.setattr(os, "replace", frozen)
    learner = threading.Thread(
        target=memory.learn, args=(ExtendKey(new_id(), new_id()), frozenset({"wwid 1"}), RUN), daemon=True
    )
    learner.start()
    until(lambda: not health.checks()[identity.HEALTH].ok, "the write is late", seconds=30)
    assert "has not returned" in health.checks()[identity.HEALTH].reason
    go.set()
    learner.join(30)
    assert health.checks()[identity.HEALTH].ok


def test_identities_that_could_not_be_written_are_written_at_the_next_look_at_the_host(
    tmp_path: Path, health: Health
) -> None:
    directory = tmp_path / "state"
    directory.touch()  # not a directory yet
    memory, disk = DeviceMemory(directory, health), ExtendKey(new_id(), new_id())
    memory.learn(disk, frozenset({"wwid 1"}), RUN)
    assert not health.checks()[identity.HEALTH].ok
    directory.unlink()
    directory.mkdir()
    memory.observe_host(frozenset({disk.server_id}))
    assert health.checks()[identity.HEALTH].ok
    assert DeviceMemory(directory, Health()).known_names(disk) == {"wwid 1"}


def test_the_calls_that_hang_are_counted_at_each_reading(health: Health) -> None:
    calls = Abandoned(2, health, AgentMetrics(CollectorRegistry()).abandoned)
    calls.add("a")
    assert health.checks()[CALLS].ok
    calls.add("b")
    assert not health.checks()[CALLS].ok
    calls.remove("a")
    assert health.checks()[CALLS].ok
