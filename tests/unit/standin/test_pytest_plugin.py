# SPDX-License-Identifier: Apache-2.0
"""A listener that is not ours, tested with the plugin: ten lines, as its authors would write them."""

import queue
from typing import Any

import oslo_messaging
import pytest
import requests
from oslo_config import cfg
from oslo_messaging import opts as messaging_opts

from bridge.core.extend import gib, new_id
from bridge.standin.cinder import Attachment, RunningStandIn
from bridge.standin.notifications import NotificationBus, recorded_messages
from listener.notification import ResizeEnd, parse, translate


class ForeignListener:
    """A listener of somebody else, made with oslo.messaging."""

    def __init__(self, url: str, topic: str) -> None:
        self.heard: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
        conf = cfg.ConfigOpts()
        for group, opts in messaging_opts.list_opts():
            conf.register_opts(opts, group=group)
        conf([])
        transport = oslo_messaging.get_notification_transport(conf, url=url)
        target = oslo_messaging.Target(topic=topic)
        self._server = oslo_messaging.get_notification_listener(transport, [target], [self], executor="threading")

    def info(
        self, _context: object, _publisher: str, event_type: str, payload: dict[str, Any], _metadata: object
    ) -> None:
        """Take a notification."""
        self.heard.put((event_type, payload))

    def __enter__(self) -> "ForeignListener":
        self._server.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.stop()
        self._server.wait()


def test_a_foreign_listener_hears_an_extend(cinder_bus: NotificationBus) -> None:
    volume, server = new_id(), new_id()
    with ForeignListener(cinder_bus.listener_url, cinder_bus.topic) as foreign:
        cinder_bus.extend(volume, 3, server)
        event, payload = foreign.heard.get(timeout=60)
    assert (event, payload["volume_id"], payload["size"]) == ("volume.resize.end", volume, 3)
    assert [row["instance_uuid"] for row in payload["volume_attachment"]] == [server]


def test_a_foreign_listener_hears_every_recorded_notification(cinder_bus: NotificationBus) -> None:
    with ForeignListener(cinder_bus.listener_url, cinder_bus.topic) as foreign:
        sent = [message.notification["event_type"] for message in cinder_bus.play() if message.priority == "info"]
        heard = [foreign.heard.get(timeout=60)[0] for _ in sent]
    assert sorted(heard) == sorted(sent)
    assert len(recorded_messages()) == len(sent) + 1


def test_the_messages_are_those_our_own_listener_reads() -> None:
    servers = (new_id(), new_id())
    bodies: list[bytes] = []

    class Bus(NotificationBus):
        def publish(self, body: bytes, *, priority: str = "info") -> None:
            bodies.append(body)

    bus = Bus(topic=f"topic-{new_id()}")
    request_id = bus.extend(new_id(), 2, *servers)
    bus.close()
    read = parse(bodies[0], max_bytes=1 << 20, max_rows=10)
    assert isinstance(read, ResizeEnd)
    assert read.origin.request_id == request_id
    assert tuple(key.server_id for key in translate(read).events) == servers


def test_the_stand_in_answers_for_the_volume(cinder_standin: RunningStandIn) -> None:
    volume = new_id()
    cinder_standin.add_volume(volume, 1, Attachment(server_id=new_id()))
    cinder_standin.extend(volume, 2)
    answer = requests.get(f"{cinder_standin.url}/demo/volumes/{volume}", timeout=30).json()
    assert gib(answer["volume"]["size"]) == gib(2)


def test_the_plugin_is_found_by_its_entry_point(pytestconfig: pytest.Config) -> None:
    plugin = pytestconfig.pluginmanager.get_plugin("extend_bridge")
    assert plugin is not None
    assert pytestconfig.getoption("--cinder-bus-url") == "memory://"
