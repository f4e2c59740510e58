# SPDX-License-Identifier: Apache-2.0
"""The listener's wiring: the one place that knows which object gets which."""

import threading
from typing import Final

from bridge.runtime.daemon import Part, Supervised
from bridge.runtime.metrics import ListenerMetrics
from bridge.runtime.process import Process
from bridge.runtime.sessions import open_adapter
from bridge.runtime.transport import check_url, kombu_connection
from listener.chronicle import Chronicle
from listener.courier import NovaEndpoint
from listener.intake import QUEUE
from listener.lanes import Lanes
from listener.loop import BROKER, Listener
from listener.settings import ListenerSettings
from listener.work import ENDPOINT, Worker

_AGENT: Final = "extend-bridge-listener"


def build(settings: ListenerSettings, process: Process) -> list[Part]:
    """The listener's one part. Connects to nothing yet; raises ConfigError."""
    check_url(settings.transport_url, "[notifications] transport_url")
    check_url(settings.bus.transport_url, "[bus] transport_url")
    health, heartbeat = process.health, settings.bus.heartbeat
    health.expect(BROKER, QUEUE)
    health.ok(ENDPOINT, "not asked yet")
    chronicle = Chronicle(process.audit("listener"), ListenerMetrics(process.registry))
    lanes = Lanes(lambda: kombu_connection(settings.bus.transport_url, heartbeat=0, name=f"{_AGENT} lanes"))
    endpoint = NovaEndpoint(
        open_adapter(process.conf, "endpoint", user_agent=_AGENT), timeout=settings.endpoint_timeout
    )
    listener = Listener(
        settings=settings,
        connect=lambda: kombu_connection(settings.transport_url, heartbeat=heartbeat, name=_AGENT),
        worker=Worker(settings=settings, endpoint=endpoint, lanes=lanes, health=health, chronicle=chronicle),
        health=health,
        chronicle=chronicle,
    )

    def run(stop: threading.Event) -> None:
        try:
            listener.run(stop)
        finally:
            lanes.close()

    return [Supervised("listener.loop", run, health)]
