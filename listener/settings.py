# SPDX-License-Identifier: Apache-2.0
"""[notifications], [listener], [endpoint]: where Cinder's notifications come from and where events go."""

from dataclasses import dataclass

from oslo_config import cfg

from bridge.runtime.sessions import endpoint_opts, endpoint_sample_opts
from bridge.runtime.settings import OPS_OPTS, BusSettings, ConfigError, OptGroups, bus_settings

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
    """As the three groups; `retry_cap` in seconds."""

    transport_url: str
    topic: str
    bus: BusSettings
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
    if not topic or any(c.isspace() for c in topic):
        raise ConfigError(f"[notifications] topic: {topic!r} is no topic")
    return ListenerSettings(
        transport_url=url,
        topic=topic,
        bus=bus_settings(conf),
        batch=conf.listener.batch,
        max_message_bytes=conf.listener.max_message_bytes,
        max_rows=conf.listener.max_rows,
        retry_cap=conf.listener.retry_cap,
    )


def list_opts() -> OptGroups:
    """For oslo-config-generator."""
    return [
        ("notifications", NOTIFICATIONS_OPTS),
        ("listener", LISTENER_OPTS),
        ("endpoint", endpoint_sample_opts("compute", timeout=_ENDPOINT_TIMEOUT)),
    ]
