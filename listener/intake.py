# SPDX-License-Identifier: Apache-2.0
"""The *topic* intake: Cinder's queues for our own topic, taken as they are and never declared.

With arguments of our own Cinder's next publish would fail without a word (measured), so a queue that is missing is
waited for and looked for again each second.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import kombu

from bridge.runtime.health import Health

QUEUE: Final = "listener.queue"
_LOOK_EVERY: Final = 1.0
_IDLE: Final = 1.0  # seconds to wait for a first message; also how often heartbeats are looked after
_DRY: Final = 0.001  # seconds: what was already on its way is taken along, nothing is waited for


class TopicIntake:
    """Messages of one connection. For one thread. Raises BROKER_ERRORS when the connection is lost."""

    def __init__(
        self, connection: kombu.Connection, queues: Sequence[str], *, prefetch: int, health: Health
    ) -> None:
        self._connection = connection
        self._queues = queues
        self._prefetch = prefetch
        self._health = health
        self._inbox: list[kombu.Message] = []

    def wait_for_queues(self, stop: threading.Event) -> bool:
        """Wait until Cinder has declared its queues; False when told to stop before."""
        while missing := [name for name in self._queues if not self._exists(name)]:
            self._health.bad(
                QUEUE,
                f"no queue {', '.join(missing)} yet: it appears with Cinder's first notification once cinder.conf "
                f"has [oslo_messaging_notifications] driver = messagingv2 and topics = notifications,"
                f"{self._queues[0].rpartition('.')[0]}",
            )
            if stop.wait(_LOOK_EVERY):
                return False
            self._connection.heartbeat_check()
        self._health.ok(QUEUE)
        return True

    @contextmanager
    def consuming(self) -> Iterator[None]:
        """Take messages, up to the prefetch at a time."""
        with self._connection.channel() as channel:
            consumer = kombu.Consumer(
                channel,
                [kombu.Queue(name, no_declare=True) for name in self._queues],
                on_message=self._inbox.append,
                accept=None,
                prefetch_count=self._prefetch,
                auto_declare=False,
            )
            with consumer:
                yield

    def gather(self) -> list[kombu.Message]:
        """Wait up to a second for a message, then take what came with it; empty when none came."""
        wait = _DRY if self._inbox else _IDLE
        self._connection.heartbeat_check()
        while len(self._inbox) < self._prefetch and self._drain(wait):
            wait = _DRY
        taken, self._inbox[:] = self._inbox[:], []
        return taken

    def keep_alive(self, seconds: float, stop: threading.Event) -> None:
        """Sleep with the connection looked after; what comes meanwhile waits for the next gather."""
        end = time.monotonic() + seconds
        while not stop.is_set() and (left := end - time.monotonic()) > 0:
            self._connection.heartbeat_check()
            self._drain(min(left, _IDLE))

    def _drain(self, seconds: float) -> bool:
        try:
            self._connection.drain_events(timeout=seconds)
        except TimeoutError:
            return False
        return True

    def _exists(self, name: str) -> bool:
        try:
            with self._connection.channel() as channel:
                kombu.Queue(name, channel=channel).queue_declare(passive=True)
        except self._connection.channel_errors:
            return False
        return True
