# SPDX-License-Identifier: Apache-2.0
"""The daemon itself, between a real broker and a real guest."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import oslo_messaging
import pytest

from bridge.core.extend import Bytes, ExtendKey, new_id
from bridge.core.inventory import GuestState
from bridge.core.messages import VERSION, Order
from bridge.core.outcome import Outcome
from hostagent.capabilities import VOLUME_TYPES
from tests.conftest import missing
from tests.lab.agent import Agent, Reports, caster, wait_for
from tests.lab.disks import RawFile
from tests.lab.guest import Guest, new_guest
from tests.lab.hypervisor import Hypervisor, have_hypervisor, private_hypervisor
from tests.lab.paths import ROOT
from tests.lab.rabbitmq import RabbitNode, have_rabbitmq

pytestmark = pytest.mark.functional
GIB = 1 << 30


@pytest.fixture(scope="module")
def node() -> Iterator[RabbitNode]:
    """A broker of this module's own: it is restarted."""
    if not have_rabbitmq():
        missing("RabbitMQ")
    with RabbitNode() as made:
        yield made


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[tuple[Hypervisor, Guest, RawFile, ExitStack]]:
    """A hypervisor root with a running guest that no process has open."""
    if not have_hypervisor():
        missing("libvirt with QEMU")
    disk = RawFile(tmp_path / "disk", GIB)
    short = tempfile.TemporaryDirectory(prefix="eb-")  # QEMU's sockets lie in it: 108 bytes
    with short, private_hypervisor(Path(short.name) / "lv") as hypervisor, ExitStack() as stack:
        guest = new_guest([disk], tmp_path)
        hypervisor.start(guest.xml())
        guest.wait_size(GIB)
        yield hypervisor, guest, disk, stack


def order(guest: Guest, disk: RawFile, size: int) -> Order:
    return Order(attempt_id=new_id(), key=ExtendKey(guest.server_id, disk.volume_id), gen=1, target=Bytes(size))


def test_an_order_comes_in_and_a_report_goes_out_also_over_a_broker_restart(
    node: RabbitNode, tmp_path: Path, stage: tuple[Hypervisor, Guest, RawFile, ExitStack]
) -> None:
    """Inventory, heartbeats, a bad order beside a good one; then the broker goes and comes; then a clean end."""
    hypervisor, guest, disk, stack = stage
    agent = Agent(tmp_path, url=node.url, libvirt_uri=hypervisor.uri, host="h1")
    agent.start()
    stack.callback(lambda: agent.end(signal.SIGKILL))
    wait_for(lambda: "no queue" in str(agent.checks()["hostagent.reports"]["reason"]), agent)
    reports, cast = Reports(node.url), caster(node.url)

    full = wait_for(lambda: [m.inventory for m in reports.drain() if m.inventory and m.inventory.full], agent)[0]
    [seen] = full.domains
    assert (seen.server_id, seen.state, seen.disks[0].size) == (guest.server_id, GuestState.ACTIVE, GIB)
    assert {"nfs", "local"} <= set(full.capabilities)
    assert "vzstorage" not in full.unsupported
    assert set(full.capabilities) | full.unsupported.keys() == set(VOLUME_TYPES)
    wait_for(lambda: all(check["ok"] for check in agent.checks().values()), agent)

    first = order(guest, disk, 2 * GIB)
    cast("h1", [{"version": VERSION, "nonsense": True}, first.to_wire()])
    assert wait_for(lambda: reports.outcome(first.attempt_id), agent) is Outcome.RESIZED
    guest.wait_size(2 * GIB)
    assert "number 1 of 2" in agent.text()
    wait_for(
        lambda: [
            d for m in reports.drain() if m.inventory and not m.inventory.full
            for d in m.inventory.domains if d.disks[0].size == 2 * GIB
        ],
        agent,
    )  # fmt: skip
    heartbeats = len(reports.messages)
    wait_for(lambda: len(reports.drain()) >= heartbeats + 2, agent)

    node.stop()
    wait_for(lambda: not agent.checks()["hostagent.reports"]["ok"], agent)
    node.start()
    wait_for(lambda: agent.checks()["hostagent.reports"]["ok"], agent)
    second = order(guest, disk, 3 * GIB)

    def cast_until_the_queue_is_back() -> Outcome | None:
        try:
            cast("h1", [second.to_wire()])
        except (oslo_messaging.MessageUndeliverable, oslo_messaging.MessagingException):
            return None
        return reports.outcome(second.attempt_id)

    assert wait_for(cast_until_the_queue_is_back, agent) in {Outcome.RESIZED, Outcome.ALREADY}
    guest.wait_size(3 * GIB)
    assert {m.boot_id for m in reports.messages if m.reports} == {reports.messages[0].boot_id}
    assert agent.end() == 0
    assert "Traceback" not in agent.text()


def test_a_report_made_while_the_broker_is_away_is_sent_when_it_is_back(
    node: RabbitNode, tmp_path: Path, stage: tuple[Hypervisor, Guest, RawFile, ExitStack]
) -> None:
    """The order is in hand when the broker goes: QEMU is stopped for that long."""
    hypervisor, guest, disk, stack = stage
    agent = Agent(tmp_path, url=node.url, libvirt_uri=hypervisor.uri, host="h2", more="libvirt_limit = 120")
    reports = Reports(node.url)
    reports.drain()
    agent.start()
    stack.callback(lambda: agent.end(signal.SIGKILL))
    wait_for(lambda: all(check["ok"] for check in agent.checks().values()), agent)
    cast, one = caster(node.url), order(guest, disk, 2 * GIB)
    pid = hypervisor.pids()[guest.name]
    os.kill(pid, signal.SIGSTOP)
    stack.callback(lambda: hypervisor.pids() and os.kill(pid, signal.SIGCONT))
    cast("h2", [one.to_wire()])
    wait_for(agent.in_flight, agent)
    node.stop()
    os.kill(pid, signal.SIGCONT)
    wait_for(lambda: "resized (size_reached)" in agent.text(), agent)
    guest.wait_size(2 * GIB)
    node.start()
    # the broker may deliver the order again, whose report then says already
    wait_for(lambda: Outcome.RESIZED in reports.outcomes(one.attempt_id), agent)
    assert agent.end() == 0


def test_with_nothing_to_reach_it_stays_up_says_so_and_ends_at_once(tmp_path: Path) -> None:
    """No broker, no libvirt: not ready with the reasons, no crash, no hang at the end."""
    agent = Agent(
        tmp_path,
        url="rabbit://guest:guest@127.0.0.1:9/",
        libvirt_uri="qemu+unix:///system?socket=/no/such",
        host="h3",
    )
    agent.start()
    try:
        checks = wait_for(
            lambda: (c := agent.checks()) and "/no/such" in str(c["hostagent.libvirt"]["reason"]) and c, agent
        )
        assert not checks["hostagent.bus"]["ok"]
        assert not checks["hostagent.reports"]["ok"]
        assert agent.process is not None
        assert agent.process.poll() is None
        assert agent.end() == 0, agent.text()[-4000:]
    finally:
        agent.end(signal.SIGKILL)


@pytest.mark.parametrize(
    "arguments", [["--config-file", "/no/such/file"], ["--no-such-option"], ["--config-file", "BAD"]]
)
def test_bad_usage_is_one_line_and_status_2(tmp_path: Path, arguments: list[str]) -> None:
    """No traceback."""
    bad = tmp_path / "bad.conf"
    bad.write_text("[hostagent]\nworkers = many\n")
    done = subprocess.run(
        [sys.executable, "-m", "hostagent.cmd", *[str(bad) if a == "BAD" else a for a in arguments]],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()
