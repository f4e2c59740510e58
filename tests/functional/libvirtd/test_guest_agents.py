# SPDX-License-Identifier: Apache-2.0
"""Extends of a real guest whose agent hangs, drips or floods, while the host agent looks into the guest."""

from typing import Final

import pytest

from bridge.core.extend import Bytes, ExtendKey, new_id
from bridge.core.messages import Order
from bridge.core.outcome import Outcome
from hostagent.drivers.libvirt.connect import open_libvirt
from tests.functional.libvirtd.conftest import GIB, Machine
from tests.lab.agent import wait_for
from tests.lab.agent_socket import Reply, SocketAgent, dripping, flooding, hanging
from tests.lab.disks import RawFile
from tests.lab.guest import new_guest
from tests.lab.waiting import LONGEST, until

pytestmark = pytest.mark.functional
_SETTINGS: Final = (
    f"libvirt_limit = {2 * LONGEST + 60:g}\n[guest]\nworkers = 1\ncall_limit = {2 * LONGEST:g}\n"
    "filesystems = {mode}\n[hostagent]\n"
)
"""The only thread that looks into guests waits for one answer longer than any test lasts."""


@pytest.mark.parametrize(("mode", "reply"), [("see", hanging), ("grow", dripping)], ids=["see", "grow"])
def test_an_extend_is_reported_while_the_guests_agent_is_still_being_waited_for(
    machine: Machine, mode: str, reply: Reply
) -> None:
    channel, disk = machine.directory / "agent", RawFile(machine.directory / "disk", GIB)
    host = machine.libvirtd()
    played = machine.stack.enter_context(SocketAgent(channel, reply))
    guest = new_guest([disk], machine.directory, agent=channel)
    open_libvirt(host.uri).createXML(guest.xml(), 0)
    guest.wait_ready()
    agent = machine.agent(host, _SETTINGS.format(mode=mode))
    for size in (2 * GIB, 3 * GIB):
        order = Order(
            attempt_id=new_id(), key=ExtendKey(guest.server_id, disk.volume_id), gen=size // GIB,
            target=Bytes(size), grow_file_system=True,
        )  # fmt: skip
        machine.cast(host.name, [order.to_wire()])
        assert wait_for(lambda order=order: machine.reports.outcome(order.attempt_id), agent) is Outcome.RESIZED  # type: ignore[misc]
        guest.wait_size(size)
        until(lambda: played.waiting == 1, "a question that waits")
    assert played.asked == 1, "the first question was given up on before the second extend was reported"


def test_a_flood_from_the_guests_agent_is_a_bad_answer_and_extends_go_on(machine: Machine) -> None:
    channel, disk = machine.directory / "agent", RawFile(machine.directory / "disk", GIB)
    host = machine.libvirtd()
    machine.stack.enter_context(SocketAgent(channel, flooding))
    guest = new_guest([disk], machine.directory, agent=channel)
    open_libvirt(host.uri).createXML(guest.xml(), 0)
    guest.wait_ready()
    agent = machine.agent(host, "[guest]\nfilesystems = see\n[hostagent]\n")
    assert machine.extend(agent, guest, 2 * GIB).outcome is Outcome.RESIZED

    def reasons() -> set[str]:
        return {seen.reason for message in machine.reports.drain() for seen in message.file_systems}

    wait_for(reasons, agent)
    assert reasons() == {"fs_agent_bad_answer"}
    assert machine.extend(agent, guest, 3 * GIB).outcome is Outcome.RESIZED
    assert agent.ready(), agent.checks()
