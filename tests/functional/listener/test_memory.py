# SPDX-License-Identifier: Apache-2.0
"""Memory of a listener that is sent large notifications, as a process of its own."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.core.extend import new_id
from bridge.runtime.broker import UNREADABLE_QUEUE
from tests.benchmarks.measure import peak_of
from tests.functional.conftest import Vhost
from tests.lab.cinder_bus import CinderBus, resize_end
from tests.lab.deploy import Processes, Site
from tests.lab.waiting import until

pytestmark = pytest.mark.functional

MIB = 1 << 20
ROWS_A_MIB = 21_000
"""Objects of the payload that make a message of 1 MiB."""


def notification(mib: float) -> bytes:
    """Return an extend with so much JSON beside what is read of it."""
    body, _ = resize_end(volume_id=new_id(), server_id=new_id(), attachment_id=new_id(), host="h", size=1)
    envelope = json.loads(body)
    message = json.loads(envelope["oslo.message"])
    message["payload"]["more"] = [{"n": n, "text": "x" * 20} for n in range(int(ROWS_A_MIB * mib))]
    return json.dumps({**envelope, "oslo.message": json.dumps(message)}).encode()


@pytest.fixture
def listener(vhost: Vhost, tmp_path: Path) -> Iterator[int]:
    """The pid of a listener that takes messages."""
    CinderBus(vhost.url).close()
    site = Site(directory=tmp_path, bus_url=vhost.url, cinder_url="http://127.0.0.1:1/v3", host="h")
    processes = Processes(site)
    processes.start("listener")
    try:
        until(
            lambda: processes.metric("listener", 'extend_bridge_ready{check="listener.queue"}') == 1,
            "ready",
            seconds=90,
        )
        yield processes.pid("listener")
    finally:
        processes.stop()


def test_a_notification_above_the_limit_is_kept_and_costs_a_few_times_its_size(vhost: Vhost, listener: int) -> None:
    """It was read at 25 times its size: 400 MiB for 16."""
    before, large = peak_of(listener), notification(14)
    assert len(large) > 12 * MIB
    bus = CinderBus(vhost.url)
    bus.publish(large)
    until(lambda: _waiting(vhost, UNREADABLE_QUEUE) == 1, "it is kept", seconds=90)
    assert peak_of(listener) - before < 100


def test_a_notification_below_the_limit_stays_within_the_budget(vhost: Vhost, listener: int) -> None:
    before, body = peak_of(listener), notification(0.9)
    assert 0.8 * MIB < len(body) < MIB
    bus = CinderBus(vhost.url)
    for _ in range(3):
        bus.publish(body)
    until(lambda: _waiting(vhost, "extend_bridge.info") == 0, "they are taken", seconds=90)
    assert peak_of(listener) - before < 40


def _waiting(vhost: Vhost, queue: str) -> int:
    rows = vhost.node.ctl("list_queues", "-p", vhost.name, "--formatter", "json", "name", "messages")
    return next((int(row["messages"] or 0) for row in json.loads(rows) if row["name"] == queue), -1)
