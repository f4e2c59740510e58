# SPDX-License-Identifier: Apache-2.0
"""The listener's wiring: only this module connects its objects."""

import threading
from typing import Final

from bridge.runtime.broker import kombu_connection
from bridge.runtime.bus_probe import BusProbe
from bridge.runtime.bus_url import check_url, is_memory
from bridge.runtime.daemon import Part, Supervised
from bridge.runtime.endpoint_probe import EndpointProbe
from bridge.runtime.endpoints import open_client
from bridge.runtime.metrics import ListenerMetrics
from bridge.runtime.process import Process
from bridge.runtime.rest import NovaEventsClient
from listener.consumer import DUE, NOTIFICATIONS, CheckNames, Loop
from listener.decode import DueReader, NotificationReader, Reader
from listener.delivery import Worker
from listener.endpoint import EndpointClient
from listener.lane_writer import LaneWriter
from listener.lanes import DUE as DUE_SPEC
from listener.lanes import Lanes
from listener.settings import IntakeMode, ListenerSettings
from listener.sources import BindSource, DueSource, QueueSource, TopicSource
from listener.telemetry import Telemetry

_AGENT: Final = "extend-bridge-listener"


def build(settings: ListenerSettings, process: Process) -> list[Part]:
    """Build the part for notifications and, where our bus has a slow lane, the part for its due events.

    The parts share only the audit log and the metrics. Does not connect yet; raises ConfigError.
    """
    check_url(settings.transport_url, "[notifications] transport_url")
    check_url(settings.bus.transport_url, "[bus] transport_url")
    audit, metrics = process.audit("listener"), ListenerMetrics(process.registry)
    telemetry = Telemetry(audit, metrics)
    reader = NotificationReader(telemetry, max_bytes=settings.max_message_bytes, max_rows=settings.max_rows)
    bind = settings.intake is IntakeMode.BIND
    source = BindSource(settings.topic, settings.exchange) if bind else TopicSource(settings.topic)
    parts = [
        _part("listener.loop", settings, process, settings.transport_url, source, reader, NOTIFICATIONS, telemetry)
    ]
    endpoint_checks, lanes_checks = [NOTIFICATIONS.endpoint], [NOTIFICATIONS.lanes]
    if not is_memory(settings.bus.transport_url):
        endpoint_checks.append(DUE.endpoint)
        lanes_checks.append(DUE.lanes)
        telemetry = Telemetry(audit, metrics, due=True)
        back = DueSource(DUE_SPEC)
        url = settings.bus.transport_url
        parts.append(_part("listener.due_loop", settings, process, url, back, DueReader(), DUE, telemetry))
    client = open_client(process.conf, "endpoint", user_agent=_AGENT)
    probe = EndpointProbe(client.get, process.health, endpoint_checks)
    bus = BusProbe(
        lambda: kombu_connection(settings.bus.transport_url, heartbeat=0, name=f"{_AGENT} look"),
        process.health, lanes_checks, words="nothing can be put into the lanes",
    )  # fmt: skip
    return [
        *parts,
        Supervised("listener.endpoint_look", probe.run, process.health),
        Supervised("listener.lanes_look", bus.run, process.health),
    ]


def _part(
    name: str,
    settings: ListenerSettings,
    process: Process,
    url: str,
    source: QueueSource,
    reader: Reader,
    checks: CheckNames,
    telemetry: Telemetry,
) -> Part:
    """Return the part of one loop: a thread with its own connections and HTTP session."""
    health, bus = process.health, settings.bus
    health.expect(checks.broker, checks.queue)
    lanes = Lanes(
        lambda: kombu_connection(bus.transport_url, heartbeat=0, name=f"{_AGENT} lanes"),
        slow=not is_memory(bus.transport_url),
        on_blocked=process.on_blocked,
    )
    endpoint = NovaEventsClient(
        open_client(process.conf, "endpoint", user_agent=_AGENT, once_more=False),
        each_trace=process.spans is not None,
    )
    worker = Worker(
        limits=settings.limits,
        reader=reader,
        client=EndpointClient(endpoint),
        lane_writer=LaneWriter(lanes, health=health, check=checks.lanes, telemetry=telemetry),
        health=health,
        check=checks.endpoint,
        telemetry=telemetry,
    )
    loop = Loop(
        connect=lambda: kombu_connection(url, heartbeat=bus.heartbeat, name=f"{_AGENT} {source.queues[0]}"),
        source=source,
        prefetch=2 * settings.limits.batch,
        retry_cap=settings.limits.retry_cap,
        worker=worker,
        health=health,
        checks=checks,
        telemetry=telemetry,
    )

    def run(stop: threading.Event) -> None:
        try:
            loop.run(stop)
        finally:
            lanes.close()

    return Supervised(name, run, health)
