# SPDX-License-Identifier: Apache-2.0
"""The daemon itself, between a real broker and a real guest."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import kombu
import oslo_messaging
import pytest

from bridge.core.extend import Bytes, ExtendKey, new_id
from bridge.core.messages import VERSION, GuestState, HostMessage, Order
from bridge.core.outcome import Outcome
from bridge.runtime.settings import load
from bridge.runtime.transport import (
    AGENT_EXCHANGE,
    AGENT_TOPIC,
    BROKER_ERRORS,
    REPORTS_QUEUE,
    QueueSpec,
    ensure_queue,
    kombu_connection,
    rpc_transport,
)
from tests.conftest import missing
from tests.lab.disks import RawFile
from tests.lab.guest import Guest, new_guest
from tests.lab.hypervisor import Hypervisor, have_hypervisor, private_hypervisor
from tests.lab.paths import ROOT
from tests.lab.rabbitmq import RabbitNode, have_rabbitmq

pytestmark = pytest.mark.functional
GIB = 1 << 30
T = TypeVar("T")
LONG = 60.0


class Agent:
    """`python -m hostagent.cmd`, its configuration and its ops port."""

    def __init__(self, directory: Path, *, url: str, libvirt_uri: str, host: str, more: str = "") -> None:
        self.log = directory / f"{host}.log"
        self._conf = directory / f"{host}.conf"
        self._conf.write_text(
            f"[bus]\ntransport_url = {url}\n[hostagent]\nhost = {host}\nlibvirt_uri = {libvirt_uri}\n"
            f"state_path = {directory / 'state'}\nheartbeat_interval = 0.5\ndevice_wait = 0.2\n{more}\n"
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "hostagent.cmd", "--config-file", str(self._conf)],
                cwd=ROOT, stdout=log, stderr=log,
            )  # fmt: skip

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def checks(self) -> dict[str, dict[str, object]]:
        """/healthz/ready, once the ops port is known."""
        checks: dict[str, dict[str, object]] = json.loads(self._ops("healthz/ready"))["checks"]
        return checks

    def in_flight(self) -> bool:
        """Whether it works on an order now."""
        return b"\nextend_bridge_hostagent_in_flight 1.0" in self._ops("metrics")

    def _ops(self, path: str) -> bytes:
        port = wait_for(lambda: re.findall(r"http://127\.0\.0\.1:(\d+)/?\s", self.text()), self)[0]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as ex:
            return ex.read()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait; the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(40)


def wait_for(look: Callable[[], T], agent: Agent | None = None, seconds: float = LONG) -> T:
    """Look until there is something."""
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < deadline, agent.text()[-4000:] if agent else "nothing came"
        time.sleep(0.05)
    return seen


class Reports:
    """The reports queue, as the engine has it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: kombu.Connection | None = None
        self.messages: list[HostMessage] = []

    def drain(self) -> list[HostMessage]:
        """All that came so far."""
        try:
            if self._connection is None:
                self._connection = kombu_connection(self._url, heartbeat=30, name="test")
                ensure_queue(self._connection, QueueSpec(name=REPORTS_QUEUE))
            with self._connection.channel() as channel:
                queue = kombu.Queue(REPORTS_QUEUE, channel=channel)
                while (message := queue.get(no_ack=True)) is not None:
                    self.messages.append(HostMessage.from_wire(json.loads(message.body)))
        except BROKER_ERRORS:
            self._connection = None
        return self.messages

    def outcome(self, attempt_id: str) -> Outcome | None:
        """Of one attempt."""
        found = [r.outcome for m in self.drain() for r in m.reports if r.attempt_id == attempt_id]
        return found[-1] if found else None


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


def caster(url: str) -> Callable[[str, list[object]], None]:
    """Orders by oslo.messaging, as the engine casts them."""
    conf = load("test", [], [], description="test")
    client = oslo_messaging.get_rpc_client(
        rpc_transport(conf, url),
        oslo_messaging.Target(exchange=AGENT_EXCHANGE, topic=AGENT_TOPIC, version="1.0"),
        transport_options=oslo_messaging.TransportOptions(at_least_once=True),
    )
    return lambda host, orders: client.prepare(server=host).cast({}, "extend", version=VERSION, orders=orders)


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
    assert full.capabilities == ("scsi", "nvme", "vendor", "block", "file")
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
    assert wait_for(lambda: reports.outcome(one.attempt_id), agent) is Outcome.RESIZED
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
        began = time.monotonic()
        assert agent.end() == 0, agent.text()[-4000:]
        assert time.monotonic() - began < 15, agent.text()[-4000:]
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
