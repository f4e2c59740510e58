# SPDX-License-Identifier: Apache-2.0
"""Where messages come from: Cinder's queues for our topic, a queue of ours bound to Cinder's exchange, or our lane.

A source never declares what is Cinder's. With arguments of our own Cinder's next publish would fail without a word
(measured), so what is missing is waited for and looked for again.
"""

from collections.abc import Sequence
from typing import Final, Protocol

import amqp.exceptions
import kombu

from bridge.runtime.broker import QueueSpec, ensure_queue

NOTIFICATIONS_QUEUE: Final = "extend_bridge.notifications"


class QueueSource(Protocol):
    """The queues of one intake: the one extends come on first, then those that are only kept from filling up."""

    @property
    def queues(self) -> Sequence[str]:
        """Their names."""

    @property
    def tended(self) -> float | None:
        """Seconds after which `why_not` is asked again although the queue is consumed from; None: never."""

    def why_not(self, connection: kombu.Connection, queue: str) -> str | None:
        """Why the queue cannot be consumed from now, in words to act on; None where it can.

        Raises BROKER_ERRORS when the connection is lost.
        """


class TopicSource:
    """Cinder's queues for a topic that is ours alone, taken as they are.

    Cinder declares the queue of a priority with its first notification of that priority: the one for errors may be
    missing for months, which is no fault.
    """

    tended = None

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self.queues: Final = (f"{topic}.info", f"{topic}.error")

    def why_not(self, connection: kombu.Connection, queue: str) -> str | None:
        """See Source."""
        try:
            with connection.channel() as channel:
                kombu.Queue(queue, channel=channel).queue_declare(passive=True)
        except amqp.exceptions.AccessRefused:
            return f"the broker refuses us the queue {queue}: our user needs the permission to read it"
        except connection.channel_errors:
            return (
                f"no queue {queue} yet: Cinder makes it with its first notification once cinder.conf says "
                f"[oslo_messaging_notifications] driver = messagingv2 and topics = notifications,{self._topic}"
            )
        return None


class BindSource:
    """A quorum queue of our own, bound to Cinder's exchange for the notifications of a topic somebody else drains.

    An exchange that is not durable is gone after a restart of the broker, and the binding with it: Cinder makes the
    exchange anew with its next notification, and what comes before we have bound again is lost. Therefore it is
    looked for again and again, also while the queue is there.
    """

    tended = 10.0

    def __init__(self, topic: str, exchange: str) -> None:
        self._exchange = exchange
        self._routing_key = f"{topic}.info"
        self.queues: Final = (NOTIFICATIONS_QUEUE,)

    def why_not(self, connection: kombu.Connection, queue: str) -> str | None:
        """See Source. Binds; binding what is bound already does nothing."""
        try:
            ensure_queue(connection, QueueSpec(name=queue))
            with connection.channel() as channel:
                bound = kombu.Queue(queue, channel=channel)
                bound.bind_to(exchange=self._exchange, routing_key=self._routing_key)
        except amqp.exceptions.AccessRefused:
            return (
                f"the broker refuses us to bind {queue}: our user needs the permissions to configure, write and "
                f"read it, and to read the exchange {self._exchange}"
            )
        except connection.channel_errors:
            return (
                f"no exchange {self._exchange} yet: Cinder makes it with its first notification once cinder.conf "
                f"says [oslo_messaging_notifications] driver = messagingv2; what it sends before is lost to us"
            )
        return None


class DueSource:
    """What the slow lane gives back."""

    tended = None

    def __init__(self, spec: QueueSpec) -> None:
        self._spec = spec
        self.queues: Final = (spec.name,)

    def why_not(self, connection: kombu.Connection, queue: str) -> str | None:
        """See Source. The queue is ours, so it is made."""
        try:
            ensure_queue(connection, self._spec)
        except connection.channel_errors as ex:
            return f"the broker refuses us the queue {queue} ({type(ex).__name__}): our user needs its permissions"
        return None
