# SPDX-License-Identifier: Apache-2.0
"""Casts of orders to host agents, confirmed by the broker."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

import kombu

from bridge.core.cast import encode_cast
from bridge.core.messages import Order
from bridge.core.reasons import Reason
from bridge.runtime.broker import AGENT_EXCHANGE, agent_key, ensure_agent_exchange
from bridge.runtime.health import LIMIT, Health
from bridge.runtime.publisher import BusPublisher, NotPublishedError

LOG = logging.getLogger(__name__)

CASTS: Final = "engine.casts"
NO_ORDERS: Final = "orders cannot be sent to host agents"
_REST: Final = 2.0
"""Seconds after a failed cast in which others fail at once, because a frozen broker costs a timeout per host."""
_ANSWERS: Final = {Reason.RETURNED: Reason.UNDELIVERABLE, Reason.BUS_BLOCKED: Reason.BUS_BLOCKED}


class OrderSender:
    """The sender of orders. For one thread.

    An agent acknowledges an order before the work. The journal casts an order again if its report does not come.
    """

    def __init__(
        self,
        connect: Callable[[], kombu.Connection],
        *,
        health: Health,
        on_blocked: Callable[[bool], None] = lambda _blocked: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._publisher = BusPublisher(connect, prepare=ensure_agent_exchange, on_blocked=on_blocked)
        self._health = health
        self._clock = clock
        self._failed: tuple[float, Reason] | None = None
        health.ok(CASTS, "not needed yet", good_for=LIMIT)

    def cast(self, host: str, orders: Sequence[Order]) -> Reason | None:
        """Send orders to one host; return None when the host's queue has them, else the reason."""
        if self._failed is not None and self._clock() - self._failed[0] < _REST:
            return self._failed[1]
        self._failed = None
        try:
            self._publisher.publish(agent_key(host), encode_cast(orders), exchange=AGENT_EXCHANGE)
        except NotPublishedError as ex:
            return self._not_cast(host, ex)
        self._health.ok(CASTS, good_for=LIMIT)
        return None

    def close(self) -> None:
        """Close the connection to the broker."""
        self._publisher.close()

    def _not_cast(self, host: str, error: NotPublishedError) -> Reason:
        reason = _ANSWERS.get(error.reason, Reason.CAST_FAILED)
        if reason is Reason.UNDELIVERABLE:
            LOG.warning("host %s has no queue: its agent never ran, or has another [hostagent] host", host)
            self._health.ok(CASTS, good_for=LIMIT)  # the broker has answered
            return reason
        LOG.warning("the broker did not accept an order for host %s: %s", host, error)
        unanswered = error.reason is Reason.BUS_UNREACHABLE
        self._health.bad(CASTS, f"{NO_ORDERS}: {error}", unanswered=unanswered)
        self._failed = (self._clock(), reason)
        return reason
