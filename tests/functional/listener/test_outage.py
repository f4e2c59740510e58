# SPDX-License-Identifier: Apache-2.0
"""The endpoint away for 40 s, ten thousand extends waiting, and a broker that takes messages back after 10 s."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.conftest import missing
from tests.functional.conftest import Vhost
from tests.functional.listener.conftest import Lab
from tests.functional.listener.test_away import daemon, publish
from tests.lab.cinder_bus import CinderBus
from tests.lab.endpoint import RecordingEndpoint
from tests.lab.rabbitmq import RabbitNode, have_rabbitmq
from tests.lab.waiting import until

pytestmark = pytest.mark.functional

EXTENDS = 10_000
AWAY = 40.0  # seconds: twice as long as messages are held
QUEUE = "extend_bridge.info"


@pytest.fixture
def impatient(endpoint: RecordingEndpoint, tmp_path: Path) -> Iterator[Lab]:
    """A broker of its own that closes the channel of a consumer that holds a message for 10 s."""
    if not have_rabbitmq():
        missing("RabbitMQ")
    with RabbitNode(config="consumer_timeout = 10000") as node:
        node.ctl("eval", "application:set_env(rabbit, channel_tick_interval, 1000).")  # looks so often
        lab = Lab(vhost=Vhost(node, "/"), endpoint=endpoint, directory=tmp_path)
        lab.more = {"listener": "hold_seconds = 20"}
        yield lab


def metric(lab: Lab, name: str) -> float:
    """A metric of the daemon; 0 while it is not served."""
    try:
        text = requests.get(f"http://127.0.0.1:{lab.ops_port}/metrics", timeout=120).text
    except requests.ConnectionError:
        return 0
    values = (line.split() for line in text.splitlines() if line.startswith(f"extend_bridge_listener_{name}"))
    return sum(float(value) for _, value in values)


def memory(pid: int) -> float:
    """Resident set in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) / 1024


def test_all_extends_are_delivered_after_an_outage_and_the_listener_stayed_as_small_as_it_was(
    impatient: Lab,
) -> None:
    """Messages are held for longer than the broker allows, so that the broker takes them back first."""
    lab = impatient
    bus = CinderBus(lab.vhost.url, durable=True)
    with daemon(lab) as process:
        first = publish(bus, 100)
        until(lambda: len(set(lab.endpoint.events)) == 100, "it works")
        small = memory(process.pid)
        lab.endpoint.close()
        began = time.monotonic()
        events = publish(bus, EXTENDS)
        largest, most = small, 0.0
        while time.monotonic() - began < AWAY:
            largest = max(largest, memory(process.pid))
            most = max(most, metric(lab, "in_hand"))
            time.sleep(0.5)
        assert lab.waiting(QUEUE) > EXTENDS - 1000, "what is not in hand stays where it is"
        lab.endpoint.open()
        until(lambda: set(lab.endpoint.events) == {*first, *events}, "every event is delivered")
        largest = max(largest, memory(process.pid))
        print(f"memory {small:.1f} MiB before, {largest:.1f} at most; {most:.0f} messages in hand at most")
        assert most <= 200, "twice a batch"
        assert largest < small + 16
    bus.close()
