# SPDX-License-Identifier: Apache-2.0
"""From an oslo transport_url to connections: kombu's for queues of our own, oslo.messaging's for casts.

`memory://` means both inside this process: kombu's memory transport and oslo's fake driver (all in one, tests).
"""

import importlib
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import amqp.exceptions
import kombu
import oslo_messaging
from kombu.exceptions import OperationalError
from oslo_config import cfg

from bridge.runtime.amqp_socket import BoundedTransport
from bridge.runtime.bus_url import MEMORY, is_memory, parse_bus_url

LOG = logging.getLogger(__name__)

_NO_LIMIT: Final = 2**31 - 1
"""RabbitMQ 4 drops what it delivered 20 times unless told otherwise, and counts each lost connection as a delivery.
Its own word for none, -1, is refused by 3.x."""
_MEMORY_POLL: Final = 0.01  # seconds; kombu's memory transport polls once a second unless told otherwise
_SILENCE: Final = 0.8
"""Of the heartbeat: the broker speaks once in half of it at least, so this much silence is no coincidence."""

REPORTS_QUEUE: Final = "extend_bridge.reports"
REPORTS_EXCHANGE: Final = "extend_bridge.from_hosts"
"""The one exchange agents write: who may write the default one may write every queue. Not named as its queue is,
or the right to publish to it would be the right to bind the queue elsewhere."""
PARKED_QUEUE: Final = "extend_bridge.parked"
UNREADABLE_QUEUE: Final = "extend_bridge.unreadable"
DUE_QUEUE: Final = "extend_bridge.due"
AGENT_TOPIC: Final = "extend_bridge_agent"
AGENT_EXCHANGE: Final = "extend_bridge"
"""Ours alone. Without a name oslo.messaging declares `openstack`, Cinder's: where Cinder's is durable, every
cast fails with 406; where ours came first, Cinder's notifications do."""

_UNLISTED_OPTIONS: Final = (
    ("oslo_messaging._metrics.client", "oslo_messaging_metrics"),
    ("oslo_messaging._tracing.client", "oslo_messaging_tracing"),
)
"""Options oslo.messaging reads on every cast and registers on the global CONF only; a version may lack one."""

BROKER_ERRORS: Final = (
    OSError,
    OperationalError,
    amqp.exceptions.AMQPError,
)
"""What any use of a broker connection may raise when the broker is away or refuses us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSpec:
    """One of our own queues. `ttl` in seconds, None: messages stay until they are taken.

    `then`: the queue that expired messages go to, which has to be there first; None: they are gone.
    """

    name: str
    ttl: float | None = None
    then: str | None = None

    def arguments(self) -> dict[str, Any]:
        """Queue arguments for RabbitMQ ≥ 3.10: quorum, so that it survives a node."""
        arguments: dict[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": _NO_LIMIT}
        if self.ttl is not None:
            arguments["x-message-ttl"] = int(self.ttl * 1000)
        if self.then is not None:
            # With the default strategy what expires into a queue that is missing is lost (measured); this one keeps
            # it, and wants reject-publish.
            arguments |= {
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": self.then,
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            }
        return arguments


def kombu_connection(url: str, *, heartbeat: int, name: str) -> kombu.Connection:
    """Return a lazy connection to any node of the transport_url, publisher confirms on. Raises nothing yet.

    A broker that is silent for `heartbeat` seconds counts as frozen; 0: only an answer that does not come tells.
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
        heartbeat=heartbeat // 2,  # the broker's own heartbeats come twice in this time
        transport_options={"bus": bus, "silence": heartbeat * _SILENCE, "name": name},
    )


def ensure_queue(connection: kombu.Connection, spec: QueueSpec) -> None:
    """Have the queue. One that exists is left as it is: other arguments would be an error 406 for everybody."""
    with connection.channel() as channel:
        try:
            kombu.Queue(spec.name, channel=channel).queue_declare(passive=True)
            return
        except (amqp.exceptions.NotFound, *connection.channel_errors):
            LOG.debug("queue %s is not there yet", spec.name)
    with connection.channel() as channel:
        kombu.Queue(
            spec.name, exchange=kombu.Exchange(""), routing_key=spec.name, durable=True, channel=channel,
            queue_arguments={} if is_memory_connection(connection) else spec.arguments(),
        ).queue_declare()  # fmt: skip


def ensure_way(connection: kombu.Connection, exchange: str, queue: str) -> None:
    """Have what is published to `exchange` under the queue's name come to the queue, which has to be there.

    Raises the connection's channel errors: our user may not, or there is another kind of exchange by that name.
    """
    with connection.channel() as channel:
        kombu.Exchange(exchange, type="direct", durable=True, channel=channel).declare()
        kombu.Queue(queue, channel=channel).bind_to(exchange=exchange, routing_key=queue)


def is_memory_connection(connection: kombu.Connection) -> bool:
    """Whether the connection is kombu's memory transport, which has no confirms and no arguments."""
    return bool(connection.transport.driver_type == "memory")


def rpc_transport(conf: cfg.ConfigOpts, url: str) -> oslo_messaging.Transport:
    """oslo.messaging's transport for casts. `conf` must hold oslo.messaging's options (settings.load does that)."""
    for module, group in _UNLISTED_OPTIONS:
        with suppress(ImportError):
            conf.register_opts(getattr(importlib.import_module(module), group), group=group)
    return oslo_messaging.get_rpc_transport(conf, url="fake://" if is_memory(url) else url)
