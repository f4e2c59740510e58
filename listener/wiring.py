# SPDX-License-Identifier: Apache-2.0
"""The listener's wiring."""

from bridge.runtime.daemon import Part, Supervised
from bridge.runtime.metrics import ListenerMetrics
from bridge.runtime.process import Process
from bridge.runtime.sessions import open_adapter
from bridge.runtime.transport import check_url, kombu_connection
from listener.chronicle import Chronicle
from listener.courier import NovaEndpoint
from listener.intake import QUEUE
from listener.lanes import Lanes
from listener.loop import BROKER, ENDPOINT, Listener
from listener.settings import ListenerSettings

_AGENT = "extend-bridge-listener"


def build(settings: ListenerSettings, process: Process) -> list[Part]:
    """The listener's one part. Connects to nothing yet; raises ConfigError."""
    check_url(settings.transport_url, "[notifications] transport_url")
    check_url(settings.bus.transport_url, "[bus] transport_url")
    process.health.expect(BROKER, QUEUE)
    process.health.ok(ENDPOINT, "not asked yet")
    listener = Listener(
        settings=settings,
        connect=lambda: kombu_connection(settings.transport_url, heartbeat=settings.bus.heartbeat, name=_AGENT),
        endpoint=NovaEndpoint(open_adapter(process.conf, "endpoint", user_agent=_AGENT)),
        lanes=Lanes(
            lambda: kombu_connection(
                settings.bus.transport_url, heartbeat=settings.bus.heartbeat, name=f"{_AGENT} lanes"
            )
        ),
        health=process.health,
        chronicle=Chronicle(process.audit("listener"), ListenerMetrics(process.registry)),
    )
    return [Supervised("listener.loop", listener.run, process.health)]
