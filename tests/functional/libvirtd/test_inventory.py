# SPDX-License-Identifier: Apache-2.0
"""What a host says of its guests through all that happens to guests, and to the agent itself."""

import signal
import uuid
from typing import Any

import pytest

from bridge.core.inventory import GuestState
from bridge.core.outcome import Outcome
from hostagent.drivers.libvirt.connect import open_libvirt
from tests.functional.libvirtd.conftest import GIB, Machine
from tests.lab.agent import wait_for

pytestmark = pytest.mark.functional


def test_the_inventory_is_right_through_save_restore_hard_reboot_and_the_agents_own_death(machine: Machine) -> None:
    """Events tell at once; what raises none, or happened while nobody listened, the full look finds."""
    host = machine.libvirtd()
    guest, disk = machine.guest()
    libvirt: Any = open_libvirt(host.uri)
    domain = libvirt.defineXML(guest.xml())
    domain.create()
    guest.wait_size(GIB)
    agent = machine.agent(host, "inventory_interval = 3600")

    def says(state: GuestState, size: int | None) -> bool:
        seen = machine.reports.domains(host.name).get(guest.server_id)
        return seen is not None and (seen.state, seen.disks[0].size) == (state, size)

    wait_for(lambda: says(GuestState.ACTIVE, GIB), agent)
    assert machine.extend(agent, guest, 2 * GIB).outcome is Outcome.RESIZED
    wait_for(lambda: says(GuestState.ACTIVE, 2 * GIB), agent)

    domain.managedSave(0)
    wait_for(lambda: says(GuestState.OFF, None), agent)
    domain.create()
    wait_for(lambda: says(GuestState.ACTIVE, 2 * GIB), agent)
    assert machine.extend(agent, guest, 3 * GIB).outcome is Outcome.RESIZED
    guest.wait_size(3 * GIB)

    domain.destroy()
    wait_for(lambda: says(GuestState.OFF, None), agent)
    with open(disk.path, "ab") as grown:  # type: ignore[attr-defined]  # noqa: PTH123
        grown.truncate(4 * GIB)
    domain.create()
    wait_for(lambda: says(GuestState.ACTIVE, 4 * GIB), agent)

    assert agent.end(signal.SIGKILL) != 0
    domain.blockResize("vda", 5 * GIB, 1)
    guest.wait_size(5 * GIB)
    agent.start()
    wait_for(lambda: says(GuestState.ACTIVE, 5 * GIB), agent)
    assert len({message.boot_id for message in machine.reports.messages}) == 2
    assert agent.end() == 0

    looks = machine.agent(host, "inventory_interval = 1")
    domain.blockResize("vda", 6 * GIB, 1)  # as nova-compute does: no event tells of it
    wait_for(lambda: says(GuestState.ACTIVE, 6 * GIB), looks)
    domain.undefine()
    domain.destroy()
    wait_for(lambda: guest.server_id not in machine.reports.domains(host.name), looks)
    libvirt.close()


def test_a_guest_whose_xml_is_above_libvirts_limit_is_named_and_leaves_the_host_whole(machine: Machine) -> None:
    """Metadata of 7 MB, as `virsh metadata` sets it: libvirt cannot hand out that XML. Nothing else is wrong."""
    host = machine.libvirtd()
    guest, _disk = machine.guest()
    strange = str(uuid.uuid4())
    libvirt: Any = open_libvirt(host.uri)
    domain = libvirt.defineXML(guest.xml())
    odd = libvirt.defineXML(
        f"<domain type='qemu'><name>odd</name><uuid>{strange}</uuid><memory unit='MiB'>16</memory>"
        "<os><type arch='x86_64' machine='pc'>hvm</type></os><devices/></domain>"
    )
    for number in range(2):
        odd.setMetadata(2, f"<a>{'x' * 3_500_000}</a>", f"k{number}", f"http://example.org/{number}", 2)
    domain.create()
    guest.wait_size(GIB)
    agent = machine.agent(host, "inventory_interval = 1")
    wait_for(lambda: {guest.server_id, strange} <= machine.reports.domains(host.name).keys(), agent)
    seen = machine.reports.domains(host.name)
    assert (seen[strange].state, seen[strange].disks) == (GuestState.OFF, ())
    assert seen[guest.server_id].disks[0].size == GIB
    wait_for(lambda: strange in str(agent.checks()["hostagent.libvirt"]["reason"]), agent)
    assert agent.checks()["hostagent.libvirt"]["ok"]
    domain.destroy()
    libvirt.close()
