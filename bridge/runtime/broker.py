# SPDX-License-Identifier: Apache-2.0
"""Connections to the broker, and the exchanges and queues of the bridge.

`memory://` is kombu's memory transport, inside this process (all in one, tests).
"""

import logging
from dataclasses import dataclass
from typing import Any, Final

import amqp.exceptions
import kombu
from kombu.exceptions import OperationalError

from bridge.runtime.amqp_socket import BoundedTransport
from bridge.runtime.bus_url import MEMORY, BusError, is_memory, parse_bus_url

LOG = logging.getLogger(__name__)

_NO_LIMIT: Final = 2**31 - 1
"""A delivery limit that means none. RabbitMQ 3.x refuses -1, RabbitMQ's own value for none.

RabbitMQ 4 drops a message after 20 deliveries by default, and counts each lost connection as a delivery.
"""
_MEMORY_POLL: Final = 0.01  # seconds; kombu's memory transport polls once a second by default
_NEGOTIATED: Final = 3
"""AMQP heartbeats in one [bus] heartbeat.

Either side takes the other for frozen after two to three AMQP heartbeats. Until then, a frozen connection's
messages wait there, although a new connection is ready for them.
"""

REPORTS_QUEUE: Final = "extend_bridge.reports"
REPORTS_EXCHANGE: Final = "extend_bridge.from_hosts"
"""The exchange agents write to, because a user who may write the default exchange may write every queue.

The exchange is not named like its queue. Otherwise the right to publish to the exchange would include the right to
bind the queue elsewhere.
"""
HOSTS_EXCHANGE: Final = "extend_bridge.hosts"
"""A topic exchange agents write to, where the routing key is the host.

A topic permission lets each host's user write only its own key. Older agents write to REPORTS_EXCHANGE.
"""
PARKED_QUEUE: Final = "extend_bridge.parked"
UNREADABLE_QUEUE: Final = "extend_bridge.unreadable"
DUE_QUEUE: Final = "extend_bridge.due"
AGENT_TOPIC: Final = "extend_bridge_agent"
AGENT_EXCHANGE: Final = "extend_bridge"
"""The exchange of orders, used by the bridge alone.

Without a name oslo.messaging declares `openstack`, which is Cinder's exchange. If Cinder's is durable, every cast
fails with 406. If the bridge declared the exchange first, Cinder's notifications fail.
"""

BROKER_ERRORS: Final = (
    OSError,
    OperationalError,
    amqp.exceptions.AMQPError,
)
"""Errors that any use of a broker connection may raise: unreachable, refused, closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSpec:
    """One queue of the bridge. `ttl` in seconds; None: messages stay until they are consumed.

    `then`: the queue that expired messages go to, which must exist already; None: they are lost. `endless`: a
    message is delivered without a limit. Otherwise the broker's own limit holds, and 0.1.0 can share the queue.
    """

    name: str
    ttl: float | None = None
    then: str | None = None
    endless: bool = True

    def arguments(self) -> dict[str, Any]:
        """Return the queue's arguments for RabbitMQ ≥ 3.10: a quorum queue, because it survives a lost node."""
        arguments: dict[str, Any] = {"x-queue-type": "quorum"}
        if self.endless:
            arguments["x-delivery-limit"] = _NO_LIMIT
        if self.ttl is not None:
            arguments["x-message-ttl"] = int(self.ttl * 1000)
        if self.then is not None:
            # With the default strategy a message that expires into a missing queue is lost (measured). This
            # strategy keeps the message, and needs reject-publish.
            arguments |= {
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": self.then,
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            }
        return arguments


def kombu_connection(url: str, *, heartbeat: int, name: str) -> kombu.Connection:
    """Return a lazy connection to any node of the transport_url, publisher confirms on. Raises nothing yet.

    A broker that is silent for `heartbeat` seconds counts as frozen. With 0 only a missing answer shows a frozen
    broker.
    """
    if is_memory(url):
        return kombu.Connection(MEMORY, transport_options={"polling_interval": _MEMORY_POLL})
    bus = parse_bus_url(url)
    first = bus.hosts[0]
    return kombu.Connection(
        hostname=first.hostname,
        port=first.port,
        userid=first.username,
        password=first.password,
        virtual_host=bus.vhost,
        transport=BoundedTransport,
        heartbeat=-(-heartbeat // _NEGOTIATED),
        transport_options={"bus": bus, "name": name},
    )


def ensure_queue(connection: kombu.Connection, spec: QueueSpec) -> None:
    """Declare the queue unless it exists, because other arguments than its own would be an error 406."""
    with connection.channel() as channel:
        try:
            kombu.Queue(spec.name, channel=channel).queue_declare(passive=True)
            return
        except (amqp.exceptions.NotFound, *connection.channel_errors):
            LOG.debug("queue %s does not exist yet", spec.name)
    with connection.channel() as channel:
        kombu.Queue(
            spec.name, exchange=kombu.Exchange(""), routing_key=spec.name, durable=True, channel=channel,
            queue_arguments={} if is_memory_connection(connection) else spec.arguments(),
        ).queue_declare()  # fmt: skip


def ensure_topic_way(connection: kombu.Connection, exchange: str, queue: str) -> None:
    """Bind the queue, which must exist, to a topic exchange under every routing key.

    Raises the connection's channel errors: a missing permission, or an exchange of another type.
    """
    with connection.channel() as channel:
        kombu.Exchange(exchange, type="topic", durable=True, channel=channel).declare()
        kombu.Queue(queue, channel=channel).bind_to(exchange=exchange, routing_key="#")


def ensure_way(connection: kombu.Connection, exchange: str, queue: str) -> None:
    """Declare the direct exchange and bind the queue, which must exist, by its own name.

    Raises the connection's channel errors: a missing permission, or an exchange of another type.
    """
    with connection.channel() as channel:
        kombu.Exchange(exchange, type="direct", durable=True, channel=channel).declare()
        kombu.Queue(queue, channel=channel).bind_to(exchange=exchange, routing_key=queue)


def is_memory_connection(connection: kombu.Connection) -> bool:
    """Return True for kombu's memory transport, which has no confirms and no queue arguments."""
    return bool(connection.transport.driver_type == "memory")


def agent_key(host: str) -> str:
    """Return the name of a host agent's queue, which is its routing key as well."""
    return f"{AGENT_TOPIC}.{host}"


def ensure_agent_exchange(connection: kombu.Connection) -> None:
    """Declare the exchange of orders unless it exists.

    A missing exchange is declared not durable, as 0.1.0 does by default. A durable exchange would be an error 406
    to 0.1.0. Engines declare the exchange and agents bind to it, again and again. So an exchange lost in a broker's
    restart comes back.
    """
    if is_memory_connection(connection):
        return
    with connection.channel() as channel:
        try:
            kombu.Exchange(AGENT_EXCHANGE, type="topic", channel=channel, passive=True).declare()
            return
        except amqp.exceptions.AccessRefused as ex:  # RabbitMQ 4.3, whether the exchange exists or not
            words = " ".join(str(ex).split())
            raise BusError(f"this user has no permission for the exchange {AGENT_EXCHANGE}: {words}") from ex
        except (amqp.exceptions.NotFound, *connection.channel_errors):
            LOG.debug("exchange %s does not exist yet", AGENT_EXCHANGE)
    try:
        with connection.channel() as channel:
            kombu.Exchange(AGENT_EXCHANGE, type="topic", durable=False, channel=channel).declare()
    except amqp.exceptions.AccessRefused as ex:
        words = " ".join(str(ex).split())
        raise BusError(
            f"the exchange {AGENT_EXCHANGE} does not exist yet; the engine declares it, because this user may not: "
            f"{words}"
        ) from ex


def ensure_agent_queue(connection: kombu.Connection, host: str) -> None:
    """Declare the queue of one host unless it exists, and bind it. A queue of 0.1.0 is used unchanged.

    A missing queue is declared as a quorum queue. RabbitMQ 4.3 refuses 0.1.0's default queues, which are neither
    durable nor exclusive.
    """
    ensure_agent_exchange(connection)
    ensure_queue(connection, QueueSpec(name=agent_key(host), endless=False))
    if not is_memory_connection(connection):
        with connection.channel() as channel:
            queue = kombu.Queue(agent_key(host), channel=channel)
            queue.bind_to(exchange=AGENT_EXCHANGE, routing_key=agent_key(host))
