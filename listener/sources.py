# SPDX-License-Identifier: Apache-2.0
"""The sources of messages: Cinder's queues for our topic, our queue bound to Cinder's exchange, or our lane.

A source never declares Cinder's queues or exchange. With our arguments Cinder's next publish would fail silently
(measured). So the source waits for a missing queue and checks again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import amqp.exceptions
import kombu

from bridge.runtime.broker import QueueSpec, ensure_queue

NOTIFICATIONS_QUEUE: Final = "extend_bridge.notifications"


@dataclass(frozen=True, slots=True)
class NoQueue:
    """The reason why a queue cannot be consumed now, with the remedy. `comes`: Cinder declares it by itself."""

    words: str
    comes: bool = False


class QueueSource(Protocol):
    """The queues of one intake: first the queue of extends, then queues that are drained only."""

    @property
    def queues(self) -> Sequence[str]:
        """The names of the queues."""

    @property
    def tended(self) -> float | None:
        """The seconds after which `why_not` is called again for a consumed queue; None for never."""

    def why_not(self, connection: kombu.Connection, queue: str) -> NoQueue | None:
        """Return the reason why the queue cannot be consumed now, else None.

        Raises BROKER_ERRORS when the connection is lost.
        """


class TopicSource:
    """The queues of Cinder for a topic that only the listener reads; never declared by us.

    Cinder declares the queue of a priority with its first notification of that priority. So the queue for errors
    may be missing for months, which is not a fault. One that we may not read is: it grows until the broker is full.
    """

    tended = None

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self.queues: Final = (f"{topic}.info", f"{topic}.error")

    def why_not(self, connection: kombu.Connection, queue: str) -> NoQueue | None:
        """Check the queue by a passive declaration."""
        try:
            with connection.channel() as channel:
                kombu.Queue(queue, channel=channel).queue_declare(passive=True)
        except amqp.exceptions.AccessRefused:
            return NoQueue(f"the broker refuses access to queue {queue}: our user needs the permission to read it")
        except connection.channel_errors:
            return NoQueue(
                f"queue {queue} does not exist yet: Cinder declares it with its first notification once "
                f"cinder.conf has [oslo_messaging_notifications] driver = messagingv2 and topics = {self._topic}",
                comes=True,
            )
        return None


class BindSource:
    """Our own quorum queue, bound to Cinder's exchange, for a topic that another service drains.

    An exchange that is not durable is gone after a restart of the broker, together with the binding. Cinder
    declares the exchange again with its next notification. Messages sent before the next binding are lost. So the
    binding is repeated on a timer, also while the queue exists.
    """

    tended = 10.0

    def __init__(self, topic: str, exchange: str) -> None:
        self._exchange = exchange
        self._routing_key = f"{topic}.info"
        self.queues: Final = (NOTIFICATIONS_QUEUE,)

    def why_not(self, connection: kombu.Connection, queue: str) -> NoQueue | None:
        """Declare and bind the queue; a repetition changes nothing."""
        try:
            ensure_queue(connection, QueueSpec(name=queue))
            with connection.channel() as channel:
                bound = kombu.Queue(queue, channel=channel)
                bound.bind_to(exchange=self._exchange, routing_key=self._routing_key)
        except amqp.exceptions.AccessRefused:
            return NoQueue(
                f"the broker refuses to bind {queue}: our user needs the permissions to configure, write and "
                f"read it, and to read the exchange {self._exchange}"
            )
        except connection.channel_errors:
            return NoQueue(
                f"exchange {self._exchange} does not exist yet: Cinder declares it with its first "
                f"notification once cinder.conf has [oslo_messaging_notifications] driver = messagingv2; "
                "earlier messages are lost",
                comes=True,
            )
        return None


class DueSource:
    """The due queue, into which the slow lane expires."""

    tended = None

    def __init__(self, spec: QueueSpec) -> None:
        self._spec = spec
        self.queues: Final = (spec.name,)

    def why_not(self, connection: kombu.Connection, queue: str) -> NoQueue | None:
        """Declare the queue, which is our own."""
        try:
            ensure_queue(connection, self._spec)
        except connection.channel_errors as ex:
            return NoQueue(
                f"the broker refuses access to queue {queue} ({type(ex).__name__}): our user needs its permissions"
            )
        return None
