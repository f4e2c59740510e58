# SPDX-License-Identifier: Apache-2.0
"""The messages of one connection, gathered: those that arrived are taken, without a wait. None is ever requeued."""

import select
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import kombu

from bridge.runtime.broker import is_memory_connection
from bridge.runtime.health import LIMIT, Health
from bridge.runtime.raw_messages import as_sent
from listener.batch import Acks
from listener.sources import NoQueue, QueueSource

_LOOK_EVERY: Final = 1.0  # seconds between checks for the queue of extends
_LOOK_SELDOM: Final = 30.0  # seconds between checks for a queue that may never exist
_IDLE: Final = 1.0  # seconds to wait for a first message; also the interval of the heartbeat's service
_SAY_EVERY: Final = 1.0  # seconds between two good words about a connection that is serviced
_BYTES_MAX: Final = 8 * 1024 * 1024
"""Limit for the bytes of messages in hand: about 2,000 notifications of the usual size."""
_DRY: Final = 0.001  # seconds: messages already on their way are taken, others are not waited for


class Intake:
    """The consumer of one source's queues. For one thread. Raises BROKER_ERRORS when the connection is lost.

    `check` is the health check of the queue of extends. `alive` is called about once a second, after the connection
    was serviced.
    """

    def __init__(
        self,
        connection: kombu.Connection,
        source: QueueSource,
        *,
        prefetch: int,
        health: Health,
        check: str,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._connection = connection
        self._source = source
        self._prefetch = prefetch
        self._health = health
        self._check = check
        self._alive = alive
        self._inbox: list[kombu.Message] = []
        self._bytes = 0
        self._usable = False
        self._consumer: kombu.Consumer | None = None
        self._looked = 0.0
        self._said = 0.0

    @contextmanager
    def consuming(self) -> Iterator[None]:
        """Consume from each queue that exists or appears, up to the prefetch limit."""
        with self._connection.channel() as channel:
            consumer = kombu.Consumer(
                as_sent(channel),
                [],
                on_message=self._take,
                accept=None,
                prefetch_count=self._prefetch,
                auto_declare=False,
            )
            with consumer:
                self._consumer = consumer
                self._look()
                yield

    def gather(self) -> list[kombu.Message]:
        """Wait up to a second for a message, then take all messages that arrived, or none.

        The bytes in hand are bounded as well: the rest stays with the broker.
        """
        self._look()
        wait = _DRY if self._inbox else _IDLE
        while len(self._inbox) < self._prefetch and self._bytes < _BYTES_MAX and self._drain(wait):
            if len(self._inbox) == 1 and not self._has_sent():
                break  # a message that comes alone is processed without waiting for others
            wait = _DRY
        self._look_after()
        return self._taken()

    def pause(self) -> list[kombu.Message]:
        """Cancel the consumer until the next gather; return the messages delivered so far, to be settled.

        With no message in hand, a channel that closes meanwhile costs no redelivery, which brokers count.
        """
        if self._consumer is not None:
            self._consumer.cancel()  # the broker's answer comes after all messages that were sent before
        while self._drain(_DRY):
            pass
        self._looked = 0.0
        return self._taken()

    def acks(self, messages: Sequence[kombu.Message]) -> Acks:
        """Return the acknowledgements of one batch; earlier batches must be acknowledged already."""
        return Acks(messages, multiple=not is_memory_connection(self._connection))

    def keep_alive(self, seconds: float, stop: threading.Event) -> None:
        """Sleep, and send heartbeats meanwhile; messages that arrive wait for the next gather."""
        end = time.monotonic() + seconds
        while not stop.is_set() and (left := end - time.monotonic()) > 0:
            self._drain(min(left, _IDLE))
            self._look_after()

    def service_connection(self) -> None:
        """Send and read heartbeats without waiting; bytes from the broker count as a sign of life once read."""
        if self._has_sent():
            self._drain(_DRY)
        self._look_after()

    def _look_after(self) -> None:
        self._connection.heartbeat_check()
        now = time.monotonic()
        if now - self._said < _SAY_EVERY:
            return
        self._said = now
        self._alive()
        if self._usable:
            self._health.ok(self._check, good_for=LIMIT)

    def _take(self, message: kombu.Message) -> None:
        self._inbox.append(message)
        self._bytes += len(message.body or b"")

    def _taken(self) -> list[kombu.Message]:
        taken, self._inbox, self._bytes = self._inbox, [], 0
        return taken

    def _has_sent(self) -> bool:
        """Return True where bytes of the broker wait to be read; py-amqp's own shortest wait is a millisecond.

        Also True where this cannot be known: kombu's memory transport, a lost connection, TLS.
        """
        sock = None if is_memory_connection(self._connection) else self._connection.connection.sock
        if sock is None or isinstance(sock, ssl.SSLSocket) or sock.fileno() < 0:
            return True
        look = select.poll()
        look.register(sock, select.POLLIN)
        return bool(look.poll(0))

    def _drain(self, seconds: float) -> bool:
        try:
            self._connection.drain_events(timeout=seconds)
        except TimeoutError:
            return False
        return True

    def _look(self) -> None:
        """Consume from the queues that exist now."""
        consumer = self._consumer
        if consumer is None:
            return
        missing = [name for name in self._source.queues if not consumer.consuming_from(name)]
        if not missing and self._source.tended is None:
            return
        wanted = self._source.queues[0]
        every = _LOOK_EVERY if wanted in missing or not self._usable else self._source.tended or _LOOK_SELDOM
        if self._looked and time.monotonic() - self._looked < every:
            return
        self._looked = time.monotonic()
        troubles: list[NoQueue] = []
        for name in missing if self._source.tended is None else self._source.queues:
            why_not = self._source.why_not(self._connection, name)
            if why_not is None and name in missing:
                consumer.add_queue(kombu.Queue(name, no_declare=True))
            elif why_not is not None and (name == wanted or not why_not.comes):
                troubles.append(why_not)
        self._usable = not troubles
        if troubles:
            self._health.bad(self._check, troubles[0].words)
        else:
            self._health.ok(self._check, good_for=LIMIT)
        if missing:
            consumer.consume()
