# SPDX-License-Identifier: Apache-2.0
"""[notifications], [listener], [endpoint]: where Cinder's notifications come from and where events go."""

from dataclasses import dataclass, replace

from oslo_config import cfg

from bridge.runtime.sessions import endpoint_opts, endpoint_sample_opts
from bridge.runtime.settings import OPS_OPTS, BusSettings, ConfigError, OptGroups, bus_settings
from bridge.runtime.transport import is_memory

_ENDPOINT_TIMEOUT = 10  # seconds; below half of the broker's heartbeat, so that a slow answer never costs it

NOTIFICATIONS_OPTS = [
    cfg.StrOpt(
        "transport_url",
        secret=True,
        help="Cinder's notification bus, as in cinder.conf: rabbit://user:password@host:port,.../vhost.",
    ),
    cfg.StrOpt(
        "topic",
        default="extend_bridge",
        help="The topic that is ours alone: in cinder.conf, [oslo_messaging_notifications] topics = "
        "notifications,extend_bridge. Cinder declares its queues <topic>.info and <topic>.error.",
    ),
]

LISTENER_OPTS = [
    cfg.IntOpt("batch", default=100, min=1, max=700, help="Events sent in one request. Nova takes about 780."),
    cfg.IntOpt(
        "max_message_bytes",
        default=16 * 1024 * 1024,
        min=1024,
        help="A larger notification is not read but kept in the queue extend_bridge.unreadable.",
    ),
    cfg.IntOpt(
        "max_rows", default=10_000, min=1, help="A volume.resize.end with more attachment rows than this is parked."
    ),
    cfg.FloatOpt(
        "retry_cap", default=30, min=0.1, help="Seconds between tries of an endpoint that is away, at most."
    ),
    *OPS_OPTS,
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerSettings:
    """As the three groups; `bus` is where our lanes are. `retry_cap` and `endpoint_timeout` in seconds."""

    transport_url: str
    topic: str
    bus: BusSettings
    endpoint_timeout: float = _ENDPOINT_TIMEOUT
    batch: int = 100
    max_message_bytes: int = 16 * 1024 * 1024
    max_rows: int = 10_000
    retry_cap: float = 30

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues Cinder declares for our topic: one per priority it uses. All are drained, one is acted on."""
        return f"{self.topic}.info", f"{self.topic}.error"


def listener_groups() -> OptGroups:
    """The listener's option groups."""
    return [
        ("notifications", NOTIFICATIONS_OPTS),
        ("listener", LISTENER_OPTS),
        ("endpoint", endpoint_opts("compute", timeout=_ENDPOINT_TIMEOUT)),
    ]


def listener_settings(conf: cfg.ConfigOpts) -> ListenerSettings:
    """Read them; raises ConfigError."""
    url = conf.notifications.transport_url
    if not url:
        raise ConfigError("[notifications] transport_url is not set: say where Cinder's notifications are")
    topic = conf.notifications.topic
    if not topic or not topic.isascii() or not topic.isprintable() or any(c.isspace() or c in "*#," for c in topic):
        raise ConfigError(f"[notifications] topic: {topic!r} cannot be one topic's name")
    bus = _lanes_bus(conf, url)
    timeout = conf.endpoint.timeout
    if timeout is None or not 0 < timeout < bus.heartbeat / 2:
        raise ConfigError(
            f"[endpoint] timeout: {timeout} must be above 0 and below half of [bus] heartbeat ({bus.heartbeat} s), "
            f"or a slow answer costs the broker connection"
        )
    return ListenerSettings(
        transport_url=url,
        topic=topic,
        bus=bus,
        endpoint_timeout=timeout,
        batch=conf.listener.batch,
        max_message_bytes=conf.listener.max_message_bytes,
        max_rows=conf.listener.max_rows,
        retry_cap=conf.listener.retry_cap,
    )


def _lanes_bus(conf: cfg.ConfigOpts, notifications_url: str) -> BusSettings:
    """Our own bus; the notification bus where none is configured.

    Never this process's memory beside a real broker: what is put there would be acknowledged and gone at the next
    stop.
    """
    bus = bus_settings(conf)
    configured = conf.get_location("transport_url", "bus")
    if configured is not None and configured.location.is_user_controlled and not is_memory(bus.transport_url):
        return bus
    return replace(bus, transport_url=notifications_url)


def list_opts() -> OptGroups:
    """For oslo-config-generator."""
    return [
        ("notifications", NOTIFICATIONS_OPTS),
        ("listener", LISTENER_OPTS),
        ("endpoint", endpoint_sample_opts("compute", timeout=_ENDPOINT_TIMEOUT)),
    ]
