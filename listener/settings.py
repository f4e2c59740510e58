# SPDX-License-Identifier: Apache-2.0
"""Options of [notifications], [listener] and [endpoint]: source of notifications, destination of events."""

from dataclasses import dataclass, field, replace
from enum import Enum

from oslo_config import cfg

from bridge.core.errors import ConfigError
from bridge.runtime.bus_url import is_memory, with_rabbit_options
from bridge.runtime.config import OPS_OPTS, BusSettings, OptGroups, bus_settings, section
from bridge.runtime.endpoints import EndpointOpts, endpoint_opts, endpoint_sample_opts
from listener.retry_policy import DeliveryLimits, RetryPolicy

_ENDPOINT_TIMEOUT = 10  # seconds; below half of the heartbeat, because a slow answer must not lose the broker

_MESSAGE_BYTES = 1024 * 1024  # about 2,000 attachments


class IntakeMode(Enum):
    """The way of notifications to the listener."""

    TOPIC = "topic"  # Cinder sends notifications to our own topic and declares its queues itself
    BIND = "bind"  # our own queue is bound to Cinder's exchange


NOTIFICATIONS_OPTS = [
    cfg.StrOpt(
        "transport_url",
        secret=True,
        help="Cinder's notification bus, as in cinder.conf: rabbit://user:password@host:port,.../vhost.",
    ),
    cfg.StrOpt(
        "intake",
        default=IntakeMode.TOPIC.value,
        choices=[
            (IntakeMode.TOPIC.value, "Cinder's queues for a topic that only the listener reads (recommended)"),
            (
                IntakeMode.BIND.value,
                "a durable queue of our own, extend_bridge.notifications, bound to Cinder's exchange",
            ),
        ],
        help="Source of the notifications. topic: read the queues of a topic of our own; set "
        "[oslo_messaging_notifications] topics = extend_bridge in cinder.conf. bind: bind our own queue to "
        "Cinder's exchange; cinder.conf stays as it is, but another program must drain the queue of its topic. "
        "With bind, messages between a restart of the broker and the listener's next binding are lost, unless "
        "Cinder's exchange is durable.",
    ),
    cfg.StrOpt(
        "topic",
        help="The topic in cinder.conf. Default with intake = topic: extend_bridge, which only the listener reads. "
        "Cinder declares its queues <topic>.info and <topic>.error, and the listener reads both. Default with "
        "intake = bind: notifications.",
    ),
    cfg.StrOpt(
        "exchange",
        default="openstack",
        help="Cinder's control_exchange; used with intake = bind, and by extend-bridge record.",
    ),
]

_TOPICS = {IntakeMode.TOPIC: "extend_bridge", IntakeMode.BIND: "notifications"}

LISTENER_OPTS = [
    cfg.IntOpt(
        "batch", default=100, min=1, max=700, help="Events sent in one request, at most. Nova accepts about 780."
    ),
    cfg.IntOpt(
        "max_message_bytes",
        default=_MESSAGE_BYTES,
        min=1024,
        help="A larger notification is not parsed. It goes to the queue extend_bridge.unreadable. Parsing takes up "
        "to 25 times a message's size in memory. An extend has about 4 kB, and half a kB for each further "
        "attachment.",
    ),
    cfg.IntOpt(
        "max_rows", default=10_000, min=1, help="A volume.resize.end with more attachment rows than this is parked."
    ),
    cfg.FloatOpt(
        "retry_cap",
        default=30,
        min=0.1,
        help="Longest time between two attempts to reach an endpoint that does not answer, in seconds.",
    ),
    cfg.FloatOpt(
        "hold_seconds",
        default=60,
        min=1,
        help="Seconds that the listener holds messages while the endpoint does not answer. Then it moves them to "
        "its slow queues and reads no more until the endpoint answers. Keep it well below the broker's "
        "consumer_timeout.",
    ),
    cfg.IntOpt(
        "park_attempts",
        default=5,
        min=1,
        help="Answers after which an event that the endpoint refuses is parked for an operator, but not before "
        "park_seconds.",
    ),
    cfg.FloatOpt(
        "park_seconds",
        default=3600,
        min=0,
        help="Shortest time for which a refused event is tried again before it is parked, in seconds.",
    ),
    *OPS_OPTS,
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerSettings:
    """The options of the three groups. `bus` has our lanes. `endpoint_timeout` in seconds."""

    transport_url: str
    topic: str
    bus: BusSettings
    intake: IntakeMode = IntakeMode.TOPIC
    exchange: str = "openstack"
    endpoint_timeout: float = _ENDPOINT_TIMEOUT
    max_message_bytes: int = _MESSAGE_BYTES
    max_rows: int = 10_000
    limits: DeliveryLimits = field(
        default_factory=lambda: DeliveryLimits(batch=100, retry_cap=30, hold=60, retry=RetryPolicy())
    )


def listener_groups(endpoint: EndpointOpts = endpoint_opts) -> OptGroups:
    """Return the listener's option groups. `endpoint` returns the options of an endpoint."""
    return [
        ("notifications", NOTIFICATIONS_OPTS),
        ("listener", LISTENER_OPTS),
        ("endpoint", endpoint("compute", timeout=_ENDPOINT_TIMEOUT)),
    ]


def listener_settings(conf: cfg.ConfigOpts) -> ListenerSettings:
    """Read the listener's options; raises ConfigError."""
    url = with_rabbit_options(conf, conf.notifications.transport_url or "")
    if not url:
        raise ConfigError(
            "[notifications] transport_url is not set: set it to the message bus of Cinder's notifications"
        )
    intake = IntakeMode(conf.notifications.intake)
    chosen = conf.notifications.topic
    topic = _name(_TOPICS[intake] if chosen is None else chosen, "topic")
    exchange = _name(conf.notifications.exchange, "exchange")
    if intake is IntakeMode.BIND and is_memory(url):
        raise ConfigError(
            "[notifications] intake = bind needs a broker, because a bus in memory does not have Cinder's exchange"
        )
    bus = _lanes_bus(conf, url)
    timeout = conf.endpoint.timeout
    if timeout is None or not 0 < timeout < bus.heartbeat / 2:
        raise ConfigError(
            f"[endpoint] timeout: {timeout} must be above 0 and below half of [bus] heartbeat ({bus.heartbeat} s), "
            f"or a slow answer costs the broker connection"
        )
    return section(
        conf,
        "listener",
        ListenerSettings,
        transport_url=url,
        topic=topic,
        bus=bus,
        intake=intake,
        exchange=exchange,
        endpoint_timeout=timeout,
        limits=section(
            conf,
            "listener",
            DeliveryLimits,
            hold=conf.listener.hold_seconds,
            retry=section(conf, "listener", RetryPolicy, prefix="park_"),
        ),
    )


def _name(text: str, option: str) -> str:
    """Return the name of a topic or exchange without wildcards, because these match other services' names."""
    if not text or not text.isascii() or not text.isprintable() or any(c.isspace() or c in "*#," for c in text):
        raise ConfigError(f"[notifications] {option}: {text!r} is not the name of one {option}")
    return text


def _lanes_bus(conf: cfg.ConfigOpts, notifications_url: str) -> BusSettings:
    """Return our own bus, or the notification bus where our own is not configured.

    The bus is never this process's memory beside a real broker, because a stop would lose acknowledged messages.
    """
    bus = bus_settings(conf)
    configured = conf.get_location("transport_url", "bus")
    if configured is not None and configured.location.is_user_controlled and not is_memory(bus.transport_url):
        return bus
    return replace(bus, transport_url=notifications_url)


def list_opts() -> OptGroups:
    """Return the options for oslo-config-generator."""
    return listener_groups(endpoint_sample_opts)
