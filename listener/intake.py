# SPDX-License-Identifier: Apache-2.0
"""The *topic* intake: Cinder's queues for our own topic, taken as they are and never declared.

With arguments of our own Cinder's next publish would fail without a word (measured), so a queue that is missing is
waited for and looked for again. Cinder declares the queue of a priority with its first notification of that
priority: the one for errors may be missing for months, which is no fault.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import amqp.exceptions
import kombu

from bridge.runtime.health import Health
from bridge.runtime.transport import is_memory_connection
from listener.acks import Acks

QUEUE: Final = "listener.queue"
_LOOK_EVERY: Final = 1.0  # seconds between looks for the queue extends come on
_LOOK_SELDOM: Final = 30.0  # seconds between looks for a queue that may well never be there
_IDLE: Final = 1.0  # seconds to wait for a first message; also how often heartbeats are looked after
_DRY: Final = 0.001  # seconds: what was already on its way is taken along, nothing is waited for


class TopicIntake:
    """Messages of one connection. For one thread. Raises BROKER_ERRORS when the connection is lost.

    `queues`: the one extends come on first, then those that are only kept from filling up.
    """

    def __init__(
        self, connection: kombu.Connection, queues: Sequence[str], *, prefetch: int, health: Health
    ) -> None:
        self._connection = connection
        self._queues = queues
        self._prefetch = prefetch
        self._health = health
        self._inbox: list[kombu.Message] = []
        self._consumer: kombu.Consumer | None = None
        self._looked = 0.0

    @contextmanager
    def consuming(self) -> Iterator[None]:
        """Take messages, up to the prefetch at a time, of each queue there is or comes to be."""
        with self._connection.channel() as channel:
            channel.auto_decode = False  # py-amqp would decode bodies by their own word on their encoding
            consumer = kombu.Consumer(
                channel,
                [],
                on_message=self._inbox.append,
                accept=None,
                prefetch_count=self._prefetch,
                auto_declare=False,
            )
            with consumer:
                self._consumer = consumer
                self._look()
                yield

    def gather(self) -> list[kombu.Message]:
        """Wait up to a second for a message, then take what came with it; empty when none came."""
        self._look()
        wait = _DRY if self._inbox else _IDLE
        while len(self._inbox) < self._prefetch and self._drain(wait):
            wait = _DRY
        self._connection.heartbeat_check()
        taken, self._inbox[:] = self._inbox[:], []
        return taken

    def acks(self, messages: Sequence[kombu.Message]) -> Acks:
        """How the messages of one gather are acknowledged; those of the gather before must be by now."""
        return Acks(messages, multiple=not is_memory_connection(self._connection))

    def keep_alive(self, seconds: float, stop: threading.Event) -> None:
        """Sleep with the connection looked after; what comes meanwhile waits for the next gather."""
        end = time.monotonic() + seconds
        while not stop.is_set() and (left := end - time.monotonic()) > 0:
            self._drain(min(left, _IDLE))
            self._connection.heartbeat_check()

    def breathe(self) -> None:
        """Look after the connection without waiting: what the broker sent counts as its sign of life once read."""
        self._drain(_DRY)
        self._connection.heartbeat_check()

    def _drain(self, seconds: float) -> bool:
        try:
            self._connection.drain_events(timeout=seconds)
        except TimeoutError:
            return False
        return True

    def _look(self) -> None:
        """Consume from queues that are there by now."""
        consumer = self._consumer
        if consumer is None:
            return
        missing = [name for name in self._queues if not consumer.consuming_from(name)]
        wanted = self._queues[0]
        every = _LOOK_EVERY if wanted in missing else _LOOK_SELDOM
        if not missing or (self._looked and time.monotonic() - self._looked < every):
            return
        self._looked = time.monotonic()
        for name in missing:
            why_not = self._why_not(name)
            if why_not is None:
                consumer.add_queue(kombu.Queue(name, no_declare=True))
            if name == wanted:
                if why_not is None:
                    self._health.ok(QUEUE)
                else:
                    self._health.bad(QUEUE, why_not)
        consumer.consume()

    def _why_not(self, name: str) -> str | None:
        """Why the queue cannot be consumed from, in words to act on; None where it can."""
        try:
            with self._connection.channel() as channel:
                kombu.Queue(name, channel=channel).queue_declare(passive=True)
        except amqp.exceptions.AccessRefused:
            return f"the broker refuses us the queue {name}: our user needs the permission to read it"
        except self._connection.channel_errors:
            return (
                f"no queue {name} yet: Cinder makes it with its first notification once cinder.conf says "
                f"[oslo_messaging_notifications] driver = messagingv2 and topics = notifications,"
                f"{name.rpartition('.')[0]}"
            )
        return None
