# SPDX-License-Identifier: Apache-2.0
"""One thread of the listener: take a batch, process it, repeat.

The thread does not linger: a batch is the messages that arrived during the last POST. A message is never requeued,
because brokers count redeliveries and drop messages after many. Messages that a lost connection leaves
unacknowledged are delivered again.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Final

import kombu

from bridge.core.errors import ShuttingDownError
from bridge.runtime.broker import BROKER_ERRORS
from bridge.runtime.bus_url import failure_words
from bridge.runtime.health import LIMIT, Health, InFlight
from bridge.runtime.retry import Backoff, keep_trying
from listener.delivery import Away, Worker
from listener.intake import Intake
from listener.sources import QueueSource
from listener.telemetry import Telemetry

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckNames:
    """Names of the health checks of one loop, and of its bus. Each loop has its own checks."""

    bus: str
    broker: str
    queue: str
    endpoint: str
    lanes: str
    messages: str


NOTIFICATIONS: Final = CheckNames(
    bus="the notification bus",
    broker="listener.broker",
    queue="listener.queue",
    endpoint="listener.endpoint",
    lanes="listener.lanes",
    messages="listener.messages",
)
DUE: Final = CheckNames(
    bus="our bus",
    broker="listener.due_broker",
    queue="listener.due_queue",
    endpoint="listener.due_endpoint",
    lanes="listener.due_lanes",
    messages="listener.due_messages",
)


class Loop:
    """A loop of sessions with a broker. `prefetch`: limit of messages in hand per queue."""

    def __init__(
        self,
        *,
        connect: Callable[[], kombu.Connection],
        source: QueueSource,
        prefetch: int,
        retry_cap: float,
        worker: Worker,
        health: Health,
        checks: CheckNames,
        telemetry: Telemetry,
    ) -> None:
        self._connect = connect
        self._source = source
        self._prefetch = prefetch
        self._retry_cap = retry_cap
        self._worker = worker
        self._health = health
        self._checks = checks
        self._telemetry = telemetry
        self._due = InFlight()
        health.due(checks.messages, self._due.oldest, what="message")

    def run(self, stop: threading.Event) -> None:
        """Run until told to stop; reconnect with back-off when the connection is lost."""

        def session() -> None:
            try:
                with self._connect() as connection:
                    self._session(connection, stop)
            except ShuttingDownError:
                LOG.info("stopped with unacknowledged messages; the broker delivers them again")
            finally:
                self._telemetry.in_hand(0)

        keep_trying(
            stop,
            Backoff(first=0.5, cap=10, floor=0.2),
            self._health,
            self._checks.broker,
            BROKER_ERRORS,
            session,
            words=lambda error: f"{self._checks.bus} cannot be used: {failure_words(error)}",
        )

    def _session(self, connection: kombu.Connection, stop: threading.Event) -> None:
        intake = Intake(
            connection,
            self._source,
            prefetch=self._prefetch,
            health=self._health,
            check=self._checks.queue,
            alive=partial(self._health.ok, self._checks.broker, good_for=LIMIT),
        )
        connection.connect()
        self._health.ok(self._checks.broker, good_for=LIMIT)
        with intake.consuming():
            while not stop.is_set():
                messages = intake.gather()
                if messages:
                    with self._in_hand(messages):
                        away = self._worker.work(messages, intake, stop)
                    if away is not None:
                        self._sit_out(away, intake, stop)

    def _sit_out(self, away: Away, intake: Intake, stop: threading.Event) -> None:
        """Stop consuming while the endpoint is unreachable: waiting messages are safest in the broker."""
        LOG.warning(
            "the endpoint is unreachable (%s); no messages are consumed until it answers", away.reason.value
        )
        messages = intake.pause()
        if messages:
            with self._in_hand(messages):
                self._worker.put_aside(messages, away, intake, stop)
        backoff = Backoff(first=1.0, cap=self._retry_cap, floor=0.1)
        for asked in count(1):
            intake.keep_alive(backoff.delay(asked) if away.after is None else max(0.1, away.after), stop)
            if stop.is_set():
                return
            still = self._worker.still_away(away)
            if still is None:
                LOG.info("the endpoint answers again; messages are consumed")
                return
            away = still

    @contextmanager
    def _in_hand(self, messages: list[kombu.Message]) -> Iterator[None]:
        """Count messages, and the age of the oldest, until each message is settled."""
        self._telemetry.in_hand(len(messages))
        self._telemetry.count_received(len(messages))
        with self._due.one():
            yield
        self._telemetry.in_hand(0)
