# SPDX-License-Identifier: Apache-2.0
"""The listener's one thread: gather what is there, work it off, again.

No linger: a batch is what came while the last one was posted. Nothing is ever requeued: brokers count that and drop
what was counted often. What a lost connection leaves unacknowledged comes again by itself.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

import kombu

from bridge.runtime.backoff import Backoff
from bridge.runtime.health import Health
from bridge.runtime.transport import BROKER_ERRORS
from listener.chronicle import Chronicle
from listener.intake import TopicIntake
from listener.settings import ListenerSettings
from listener.work import StoppedError, Worker

LOG = logging.getLogger(__name__)

BROKER: Final = "listener.broker"
_SETTLED: Final = 60.0  # seconds a connection has to last for its loss to count as the first again


class Listener:
    """One session after another with Cinder's broker, for ever."""

    def __init__(
        self,
        *,
        settings: ListenerSettings,
        connect: Callable[[], kombu.Connection],
        worker: Worker,
        health: Health,
        chronicle: Chronicle,
    ) -> None:
        self._settings = settings
        self._connect = connect
        self._worker = worker
        self._health = health
        self._chronicle = chronicle

    def run(self, stop: threading.Event) -> None:
        """Until told to stop; a lost broker is connected to again, with back-off."""
        away, failures = Backoff(first=0.5, cap=10, floor=0.2), 0
        while not stop.is_set():
            started = time.monotonic()
            try:
                with self._connect() as connection:
                    self._session(connection, stop)
            except StoppedError:
                LOG.info("stopped with messages in hand; the broker delivers them again")
            except BROKER_ERRORS as ex:
                self._health.bad(BROKER, f"the notification bus is away: {type(ex).__name__}; connecting again")
            self._chronicle.in_hand(0)
            failures = 1 if time.monotonic() - started > _SETTLED else failures + 1
            stop.wait(away.delay(failures))

    def _session(self, connection: kombu.Connection, stop: threading.Event) -> None:
        intake = TopicIntake(
            connection, self._settings.queues, prefetch=2 * self._settings.batch, health=self._health
        )
        connection.connect()
        self._health.ok(BROKER)
        with intake.consuming():
            while not stop.is_set():
                messages = intake.gather()
                if messages:
                    self._chronicle.in_hand(len(messages))
                    self._chronicle.took(len(messages))
                    self._worker.work(messages, intake, stop)
                    self._chronicle.in_hand(0)
