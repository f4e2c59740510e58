# SPDX-License-Identifier: Apache-2.0
"""Engine and agent of different versions over a real broker: version 1 is played by its frozen messages."""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import kombu
import pytest
import requests

from bridge.core.extend import ExtendKey, gib, new_id
from bridge.journal.claims import Claims
from bridge.runtime.broker import REPORTS_QUEUE, QueueSpec, ensure_queue
from bridge.runtime.publisher import SafePublisher
from bridge.standin.cinder import Attachment, StandInCinder
from tests.functional.conftest import Vhost
from tests.lab.deploy import Processes, Site
from tests.lab.oslo_rpc import oslo_agent, oslo_caster
from tests.lab.versions import frozen
from tests.lab.waiting import until

pytestmark = pytest.mark.functional

V1 = frozen(1)
HOST = "host-1"
KEY = ExtendKey(new_id(), new_id())


class AgentOfVersion1:
    """Takes casts and reports as version 1 did; `version` of its messages can be another one."""

    def __init__(self, vhost: Vhost) -> None:
        self._connection = vhost.connection()
        ensure_queue(self._connection, QueueSpec(name=REPORTS_QUEUE))
        self._publisher = SafePublisher(self._connection)
        self._lock = threading.Lock()
        self._boot, self._seq = new_id(), 0
        self.version = V1.VERSION
        self.orders: list[Any] = []

    def extend(self, orders: Sequence[Any]) -> None:
        """As the agent of version 1: what it can read is done at once."""
        read = [V1.Order.from_wire(order) for order in orders]
        self.orders += read
        self.say(reports=tuple(map(_done, read)))

    def say(self, *, reports: tuple[Any, ...] = (), inventory: Any = None) -> None:
        """One message of this host."""
        with self._lock:
            self._seq += 1
            message = V1.HostMessage(
                host=HOST,
                boot_id=self._boot,
                seq=self._seq,
                sent_at=time.time(),
                reports=reports,
                inventory=inventory,
            )
            wire = {**message.to_wire(), "version": self.version}
            self._publisher.publish(REPORTS_QUEUE, json.dumps(wire).encode())

    def has_the_guest(self) -> None:
        """Its inventory."""
        disk = V1.DiskSeen(volume_id=KEY.volume_id, size=gib(1))
        seen = V1.DomainSeen(server_id=KEY.server_id, state=V1.GuestState.ACTIVE, disks=(disk,))
        self.say(inventory=V1.Inventory(full=True, domains=(seen,)))

    def close(self) -> None:
        """Let go of the broker."""
        self._connection.release()


def _done(order: Any) -> Any:
    return V1.Report(
        attempt_id=order.attempt_id, key=order.key, gen=order.gen, outcome=V1.Outcome.RESIZED,
        reason="size_reached", target=order.target, before=gib(1), after=order.target,
    )  # fmt: skip


@pytest.fixture
def site(vhost: Vhost, tmp_path: Path) -> Iterator[Site]:
    """A volume of 2 GiB whose guest has 1, and configuration; hosts have 2 s to report."""
    cinder = StandInCinder()
    cinder.add_volume(KEY.volume_id, 2, Attachment(server_id=KEY.server_id, host=HOST))
    server = cinder.server()
    server.start()
    extra = "[engine]\nreport_within = 2\nretry_cap = 1\n"
    yield Site(directory=tmp_path, bus_url=vhost.url, cinder_url=f"{server.url}/v3", host=HOST, extra=extra)
    server.stop()
    server.join(120)


@pytest.fixture
def engine(site: Site) -> Iterator[Processes]:
    """Today's API and engine."""
    processes = Processes(site)
    processes.start("api", "engine")
    processes.wait_ready("api", "engine")
    yield processes
    processes.stop()


@pytest.fixture
def agent(vhost: Vhost) -> Iterator[AgentOfVersion1]:
    """Listens for casts."""
    with ExitStack() as stack:
        played = AgentOfVersion1(vhost)
        stack.callback(played.close)
        server = oslo_agent(vhost.url, HOST, played.extend)
        server.start()
        stack.callback(server.wait)
        stack.callback(server.stop)
        yield played


def _event(site: Site) -> None:
    events = [{"name": "volume-extended", "server_uuid": KEY.server_id, "tag": KEY.volume_id}]
    answer = requests.post(
        f"{site.api_url}/os-server-external-events", json={"events": events}, timeout=10,
        headers={"OpenStack-API-Version": "compute 2.51"},
    )  # fmt: skip
    assert answer.status_code == 200, answer.text


def _open(site: Site) -> int:
    journal = site.journal()
    try:
        return Claims(journal.database).standing().open
    finally:
        journal.database.dispose()


CLOSED = 'extend_bridge_engine_closed_total{outcome="resized"}'


def test_an_agent_of_version_1_serves_todays_engine(site: Site, engine: Processes, agent: AgentOfVersion1) -> None:
    agent.has_the_guest()
    until(lambda: site.knows(KEY.server_id), "the inventory is taken")
    _event(site)
    until(lambda: engine.metric("engine", CLOSED) == 1, "the extend is closed")
    assert {(order.key.volume_id, order.target) for order in agent.orders} == {(KEY.volume_id, gib(2))}
    assert _open(site) == 0


def test_an_order_is_open_until_a_report_the_engine_can_read(
    site: Site, engine: Processes, agent: AgentOfVersion1
) -> None:
    """Reports of a version the engine does not know close nothing and lose nothing: it casts again."""
    agent.has_the_guest()
    until(lambda: site.knows(KEY.server_id), "the inventory is taken")
    agent.version = V1.VERSION + 1
    _event(site)
    until(lambda: len(agent.orders) >= 2, "the order is cast again")
    assert (_open(site), engine.metric("engine", CLOSED)) == (1, 0)
    said = engine.log("engine").read_text()
    assert "version: this side reads up to 1, upgrade it" in said
    agent.version = V1.VERSION
    until(lambda: _open(site) == 0, "the extend is closed")
    assert engine.metric("engine", CLOSED) == 1


def test_todays_agent_serves_an_engine_of_version_1(site: Site, vhost: Vhost) -> None:
    """Its guest is none that libvirt's test driver has, which is an answer as good as any.

    Nor has that engine made the exchange of reports.
    """
    pytest.importorskip("libvirt")
    processes = Processes(site)
    with vhost.connection() as connection:
        ensure_queue(connection, QueueSpec(name=REPORTS_QUEUE))  # the engine's to make
    processes.start("hostagent")
    try:
        processes.wait_ready("hostagent")
        cast = oslo_caster(vhost.url)
        order = V1.Order(
            attempt_id=new_id(),
            key=V1.ExtendKey(KEY.server_id, KEY.volume_id),
            gen=1,
            target=gib(2),
            connection=None,
        )
        newer = {**order.to_wire(), "version": V1.VERSION + 1, "attempt_id": new_id()}
        cast(HOST, [newer, order.to_wire()])
        reports = _reports(vhost, 1)
    finally:
        processes.stop()
    assert [(r.attempt_id, r.outcome, r.gen) for r in reports] == [(order.attempt_id, V1.Outcome.NOT_HERE, 1)]
    said = processes.log("hostagent").read_text()
    assert "upgrade" in said
    assert "reports are sent to the default exchange" in said


def _reports(vhost: Vhost, count: int) -> list[Any]:
    """What an engine of version 1 reads off the queue until it has so many reports."""
    found: list[Any] = []
    with vhost.connection() as connection:
        queue = kombu.Queue(REPORTS_QUEUE, no_declare=True)(connection.default_channel)

        def read() -> bool:
            while (message := queue.get(no_ack=True, accept=None)) is not None:
                found.extend(V1.HostMessage.from_wire(json.loads(message.body)).reports)
            return len(found) >= count

        until(read, "the report")
    return found
