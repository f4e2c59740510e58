# SPDX-License-Identifier: Apache-2.0
"""An agent that only looks, on a real guest: it says what the guest sees, and libvirt itself lets it do no more."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from bridge.core.extend import Bytes, ExtendKey, new_id
from bridge.core.inventory import GuestState, Inventory
from bridge.core.messages import Order
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from bridge.runtime.health import Health
from bridge.runtime.metrics import AgentMetrics
from hostagent.errors import StepFailedError
from hostagent.inventory import InventoryKeeper, Touched
from hostagent.observe import ObserveTools, observe
from hostagent.resize import grow
from tests.functional.hostagent.conftest import GIB, Host
from tests.lab.disks import Disk, Qcow2File
from tests.lab.guest import Guest
from tests.lab.waiting import until

pytestmark = pytest.mark.functional


@pytest.fixture
def eyes(host: Host) -> Iterator[ObserveTools]:
    """As the agent's wiring has them with read_only."""
    from hostagent.drivers.libvirt.connect import open_read_only  # noqa: PLC0415
    from hostagent.drivers.libvirt.session import Abandoned, Session  # noqa: PLC0415 - needs libvirt, which `host` looked for

    abandoned = Abandoned(4, Health(), AgentMetrics(CollectorRegistry()).abandoned)
    session = Session(host.hypervisor.uri, limit=5.0, abandoned=abandoned, connect=open_read_only)
    yield ObserveTools(hypervisor=session, wait=0.2, sleep=threading.Event().wait, clock=time.monotonic)
    session.close()


def order(guest: Guest, disk: Disk, size: int) -> Order:
    """Bring it to `size` bytes."""
    return Order(attempt_id=new_id(), key=ExtendKey(guest.server_id, disk.volume_id), gen=1, target=Bytes(size))


def test_it_reads_back_what_another_has_done_and_does_nothing_itself(
    host: Host, eyes: ObserveTools, tmp_path: Path
) -> None:
    disk = Qcow2File(tmp_path / "disk.qcow2", GIB)
    guest = host.boot(disk)
    behind = observe(order(guest, disk, 2 * GIB), eyes)
    assert (behind.outcome, behind.reason) == (Outcome.NOT_YET, Reason.NOVA_NOT_THERE)
    assert (behind.before, behind.after) == (GIB, GIB)
    host.domain(guest).blockResize("vda", 2 * GIB, 1)  # nova-compute
    guest.wait_size(2 * GIB)
    there = observe(order(guest, disk, 2 * GIB), eyes)
    assert (there.outcome, there.after) == (Outcome.ALREADY, 2 * GIB)
    assert guest.sizes() == [GIB, 2 * GIB]


def test_libvirt_refuses_a_resize_over_its_connection(host: Host, eyes: ObserveTools, tmp_path: Path) -> None:
    """Even the one function that resizes, given this connection, cannot."""
    disk = Qcow2File(tmp_path / "disk.qcow2", GIB)
    guest = host.boot(disk)
    domain = eyes.hypervisor.domain(guest.server_id)
    assert domain is not None
    with pytest.raises(StepFailedError) as refused:
        grow(eyes.hypervisor, guest.server_id, domain.disks[0], 2 * GIB)
    assert "read only" in refused.value.detail
    assert host.domain(guest).blockInfo("vda")[0] == GIB


def test_its_inventory_has_every_guest_and_follows_events(host: Host, eyes: ObserveTools, tmp_path: Path) -> None:
    """Reading and listening need no more than a connection for reading."""
    disk = Qcow2File(tmp_path / "disk.qcow2", GIB)
    guest = host.boot(disk)
    seen: list[Inventory] = []
    touched, stop = Touched(), threading.Event()
    keeper = InventoryKeeper(
        eyes.hypervisor,  # type: ignore[arg-type]
        tell=seen.append, touched=touched, volume_types={}, interval=60, health=Health(),
    )  # fmt: skip
    thread = threading.Thread(target=keeper.run, args=(stop,), daemon=True)
    thread.start()
    try:
        until(lambda: seen, "the first look")
        (mine,) = [domain for domain in seen[0].domains if domain.server_id == guest.server_id]
        assert (mine.state, mine.disks[0].size) == (GuestState.ACTIVE, GIB)
        host.domain(guest).destroy()
        until(lambda: any(guest.server_id in inventory.gone for inventory in seen), "the event")
    finally:
        stop.set()
        touched.close()
        thread.join(120)
