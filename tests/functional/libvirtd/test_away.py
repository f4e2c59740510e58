# SPDX-License-Identifier: Apache-2.0
"""A libvirtd that is restarted, killed or hung under a running agent, and a QEMU that hangs beside others."""

import os
import signal
from functools import partial
from typing import Any

import pytest

from bridge.core.inventory import GuestState
from bridge.core.messages import Report
from bridge.core.outcome import Outcome
from hostagent.drivers.libvirt.connect import open_libvirt
from tests.functional.libvirtd.conftest import GIB, Machine
from tests.lab.agent import wait_for
from tests.lab.guest import Guest
from tests.lab.libvirtd import Libvirtd
from tests.lab.proxy import Proxy, Which

pytestmark = pytest.mark.functional

QUICK = "libvirt_limit = 1\nabandoned_max = 4\nworkers = 3\n"


def boot(host: Libvirtd, *guests: Guest) -> None:
    """Start them with a connection that is closed again."""
    connection: Any = open_libvirt(host.uri)
    for guest in guests:
        connection.createXML(guest.xml(), 0)
    connection.close()
    for guest in guests:
        guest.wait_size(GIB)


def ends(report: Report) -> tuple[Outcome, str]:
    return report.outcome, report.reason


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_libvirtd_that_goes_and_comes_costs_an_attempt_and_nothing_else(
    machine: Machine, number: signal.Signals
) -> None:
    """While it is away the outcome says so at once; afterwards the inventory knows what happened meanwhile."""
    host = machine.libvirtd()
    (one, _), (two, _) = machine.guest("one"), machine.guest("two")
    boot(host, one, two)
    agent = machine.agent(host, QUICK)
    wait_for(lambda: machine.reports.size(host.name, one.server_id) == GIB, agent)
    assert machine.extend(agent, one, 2 * GIB).outcome is Outcome.RESIZED

    gone = host.pids()[two.name]
    host.stop(number)
    assert ends(machine.extend(agent, one, 3 * GIB)) == (Outcome.HYPERVISOR_FAILED, "libvirt_down")
    wait_for(lambda: not agent.ready(), agent)
    assert "libvirt-sock" in agent.reason("hostagent.libvirt")
    os.kill(gone, signal.SIGKILL)

    host.start()
    wait_for(agent.ready, agent)
    assert machine.extend(agent, one, 3 * GIB).outcome is Outcome.RESIZED
    one.wait_size(3 * GIB)
    wait_for(lambda: machine.reports.size(host.name, one.server_id) == 3 * GIB, agent)
    wait_for(lambda: two.server_id not in machine.reports.domains(host.name), agent)
    assert "Traceback" not in agent.text()


def test_a_hung_libvirtd_is_given_up_on_and_readiness_counts_the_calls(machine: Machine) -> None:
    """It keeps its socket and answers nobody: each call has its limit, all of them together have a cap."""
    host = machine.libvirtd()
    guests = [machine.guest(f"disk{n}")[0] for n in range(6)]
    boot(host, *guests)
    agent = machine.agent(host, QUICK)
    host.hang()
    for guest in guests:
        assert ends(machine.extend(agent, guest, 2 * GIB)) == (Outcome.HYPERVISOR_FAILED, "libvirt_timed_out")
    assert "libvirt calls hang" in wait_for(
        lambda: (c := agent.checks()["hostagent.libvirt_calls"]) and not c["ok"] and str(c["reason"]), agent
    )
    host.go_on()
    wait_for(agent.ready, agent)
    wait_for(lambda: agent.reason("hostagent.libvirt_calls") == "ok", agent)
    for guest in guests:
        assert machine.extend(agent, guest, 3 * GIB).outcome is Outcome.RESIZED
        wait_for(partial(_shows, machine, host.name, guest.server_id, {3 * GIB}), agent)
        guest.wait_size(3 * GIB)
        assert guest.sizes() == sorted(guest.sizes())


@pytest.mark.skipif(not os.environ.get("EXTEND_BRIDGE_GRAY"), reason="the long form: tools/test --long chaos")
def test_a_socket_of_libvirt_that_became_silent_is_left_for_a_new_one(machine: Machine) -> None:
    """The daemon is well, what lies between is not: old connections stay silent for ever, new ones work."""
    host = machine.libvirtd()
    guest = machine.guest()[0]
    boot(host, guest)
    with Proxy(host.root / "libvirt-sock", listen=host.root / "way") as proxy:
        host.uri = f"qemu+unix:///system?socket={host.root}/way"
        agent = machine.agent(host, QUICK)
        wait_for(lambda: machine.reports.size(host.name, guest.server_id) == GIB, agent)
        proxy.freeze(Which.ALL)
        assert ends(machine.extend(agent, guest, 2 * GIB)) == (Outcome.HYPERVISOR_FAILED, "libvirt_timed_out")
        wait_for(lambda: not agent.ready(), agent)
        proxy.heal(Which.NEW)
        wait_for(agent.ready, agent)
        wait_for(lambda: machine.extend(agent, guest, 2 * GIB).outcome is Outcome.RESIZED, agent)
        guest.wait_size(2 * GIB)
        agent.end()


def test_guests_that_hang_hold_up_no_other_and_the_inventory_goes_on(machine: Machine) -> None:
    """There are more of them than calls that may be given up on; the inventory leaves most of those to orders."""
    host = machine.libvirtd()
    sick = [machine.guest(f"sick{n}")[0] for n in range(5)]
    well, other = machine.guest("well")[0], machine.guest("other")[0]
    boot(host, *sick, well, other)
    agent = machine.agent(host, f"{QUICK}inventory_interval = 1\n")
    wait_for(lambda: len(machine.reports.domains(host.name)) == 7, agent)
    pids = [host.pids()[guest.name] for guest in sick]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        wait_for(lambda: "abandoned" in agent.reason("hostagent.libvirt_calls"), agent)
        boot(host, late := machine.guest("late")[0])
        wait_for(lambda: late.server_id in machine.reports.domains(host.name), agent)
        assert agent.ready(), agent.checks()
        assert machine.extend(agent, well, 2 * GIB).outcome is Outcome.RESIZED
        assert ends(machine.extend(agent, sick[-1], 2 * GIB)) == (Outcome.HYPERVISOR_FAILED, "libvirt_timed_out")
        assert machine.extend(agent, other, 2 * GIB).outcome is Outcome.RESIZED
        known = machine.reports.domains(host.name)
        assert {guest.server_id for guest in sick} <= known.keys(), "a hung guest is no guest that is gone"
        assert known[well.server_id].state is GuestState.ACTIVE
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    wait_for(lambda: agent.reason("hostagent.libvirt_calls") == "ok", agent)
    for guest in sick:
        wait_for(partial(_shows, machine, host.name, guest.server_id, {GIB, 2 * GIB}), agent)


def _shows(machine: Machine, host: str, server_id: str, sizes: set[int]) -> bool:
    return machine.reports.size(host, server_id) in sizes
