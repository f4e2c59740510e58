# SPDX-License-Identifier: Apache-2.0
"""Orders from the engine, consumed from this host's own queue."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import kombu

from bridge.core.cast import decode_cast
from bridge.core.messages import Order
from bridge.core.reasons import Reason
from bridge.core.wire import BadMessageError
from bridge.runtime.broker import BROKER_ERRORS, agent_key, ensure_agent_queue
from bridge.runtime.bus_url import failure_words
from bridge.runtime.health import LIMIT, Health
from bridge.runtime.raw_messages import as_sent, body_bytes
from bridge.runtime.retry import Backoff, keep_trying

LOG = logging.getLogger(__name__)

HEALTH: Final = "hostagent.bus"
_PREFETCH: Final = 20
_IDLE: Final = 1.0  # seconds to wait for a message, and between checks of the broker's heartbeats
_LOOK_AGAIN: Final = 30.0  # seconds; a binding that an operator deleted is missing until then


def read_cast(body: bytes) -> list[Order]:
    """Return the orders that can be read; log the others, without their content."""
    try:
        raw = decode_cast(body)
    except BadMessageError as ex:
        LOG.error("%s: %s", Reason.BAD_ORDER.text, ex)  # noqa: TRY400
        return []
    orders = []
    for number, item in enumerate(raw):
        try:
            orders.append(Order.from_wire(item))
        except BadMessageError as ex:
            LOG.error("%s: number %d of %d: %s", Reason.BAD_ORDER.text, number + 1, len(raw), ex)  # noqa: TRY400
    return orders


class OrderConsumer:
    """The consumer of one host's queue; the body of a supervised thread.

    A message is acknowledged once the workers have its orders. Orders that a killed agent had in hand are cast
    again, because no report of them comes.
    """

    def __init__(
        self,
        connect: Callable[[], kombu.Connection],
        host: str,
        submit: Callable[[Sequence[Order]], None],
        health: Health,
    ) -> None:
        self._connect = connect
        self._host = host
        self._submit = submit
        self._health = health
        health.expect(HEALTH)

    def run(self, stop: threading.Event) -> None:
        """Run until told to stop; reconnect with back-off when the broker is lost."""

        def session() -> None:
            with self._connect() as connection:
                self._consume(connection, stop)

        keep_trying(
            stop,
            Backoff(first=0.5, cap=10, floor=0.2),
            self._health,
            HEALTH,
            BROKER_ERRORS,
            session,
            words=lambda error: f"orders cannot be read from our bus: {failure_words(error)}",
        )

    def _consume(self, connection: kombu.Connection, stop: threading.Event) -> None:
        ensure_agent_queue(connection, self._host)
        looked = time.monotonic()
        with connection.channel() as channel:
            consumer = kombu.Consumer(
                as_sent(channel),
                [kombu.Queue(agent_key(self._host), no_declare=True)],
                on_message=self._take,
                prefetch_count=_PREFETCH,
                accept=None,
                auto_declare=False,
            )
            with consumer:
                LOG.info("orders for host %s are read", self._host)
                while not stop.is_set():
                    self._health.ok(HEALTH, good_for=LIMIT)
                    if time.monotonic() - looked > _LOOK_AGAIN:
                        ensure_agent_queue(connection, self._host)
                        looked = time.monotonic()
                    self._wait(connection)

    def _take(self, message: kombu.Message) -> None:
        if orders := read_cast(body_bytes(message)):
            self._submit(orders)
        message.ack()

    @staticmethod
    def _wait(connection: kombu.Connection) -> None:
        with suppress(TimeoutError):
            connection.drain_events(timeout=_IDLE)
        connection.heartbeat_check()
