# SPDX-License-Identifier: Apache-2.0
"""Recording beside the listener, and replaying into its queue, on a real broker."""

import json
import threading
from pathlib import Path

import pytest

from bridge.cli.app import main
from bridge.core.extend import REPLAY_MARK, new_id
from bridge.runtime.broker import kombu_connection
from listener.cli.record import Tap, record
from listener.notification import ResizeEnd, parse
from tests.conftest import missing
from tests.lab.cinder_bus import CinderBus, resize_end
from tests.lab.rabbitmq import RabbitNode, have_rabbitmq
from tests.lab.waiting import until

pytestmark = pytest.mark.functional


def test_a_recording_takes_nothing_from_the_listener_and_replays_into_its_queue(tmp_path: Path) -> None:
    """The copy has the same extend; Cinder's own message stays for the listener."""
    if not have_rabbitmq():
        missing("RabbitMQ")
    path, conf = tmp_path / "recording.jsonl", tmp_path / "x.conf"
    volume, server = new_id(), new_id()
    with RabbitNode() as node, path.open("w") as output:
        bus = CinderBus(node.url)
        stop, tap = threading.Event(), Tap(output, wanted=lambda _: True, count=1)
        connection = kombu_connection(node.url, heartbeat=30, name="test")
        thread = threading.Thread(
            target=record, args=(connection, tap), kwargs={
                "exchange": "openstack", "topic": "extend_bridge", "seconds": 60.0, "stop": stop,
            },
        )  # fmt: skip
        thread.start()
        try:
            until(lambda: _published(bus, tap, volume, server), "the recording")
        finally:
            stop.set()
            thread.join()
        assert tap.written == 1
        conf.write_text(f"[notifications]\ntransport_url = {node.url}\n")
        waiting = _drain(node.url)
        assert volume.encode() in waiting[0]
        assert main(["replay", "--send", "--to", "broker", "--config-file", str(conf), str(path)]) == 0
        (replayed,) = _drain(node.url)
        bus.close()
    read = parse(replayed, max_bytes=10**6, max_rows=10)
    assert isinstance(read, ResizeEnd)
    assert (read.volume_id, read.rows[0].server_id) == (volume, server)
    assert (read.origin.carried or "").startswith(REPLAY_MARK)
    assert set(json.loads(path.read_text())) == {"captured_at", "routing_key", "properties", "body"}


def _published(bus: CinderBus, tap: Tap, volume: str, server: str) -> bool:
    body, _ = resize_end(volume_id=volume, server_id=server, attachment_id=new_id(), host="h", size=2)
    bus.publish(body)
    return tap.full


def _drain(url: str) -> list[bytes]:
    with kombu_connection(url, heartbeat=0, name="test") as connection, connection.channel() as channel:
        taken = []
        while (message := channel.basic_get("extend_bridge.info", no_ack=True)) is not None:
            taken.append(message.body if isinstance(message.body, bytes) else message.body.encode())
        return taken
