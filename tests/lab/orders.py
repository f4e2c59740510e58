# SPDX-License-Identifier: Apache-2.0
"""Both ends of the way of orders, on a real broker and outside any daemon."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from bridge.core.messages import Order
from bridge.engine.rpc import OrderSender
from bridge.runtime.broker import kombu_connection
from bridge.runtime.health import Health
from hostagent.rpc import HEALTH, OrderConsumer
from tests.lab.waiting import until


def sender_to(
    url: str, health: Health | None = None, on_blocked: Callable[[bool], None] = lambda _blocked: None
) -> OrderSender:
    """Return an engine's end."""
    return OrderSender(
        lambda: kombu_connection(url, heartbeat=0, name="test casts"),
        health=health or Health(),
        on_blocked=on_blocked,
    )


@contextmanager
def consuming(
    url: str, host: str, taken: list[Order], *, heartbeat: int = 30, wait: bool = True
) -> Iterator[Health]:
    """Run an agent's end; `taken` grows with the orders. With `wait` it takes orders when the block begins."""
    health, stop = Health(), threading.Event()

    def take(orders: Sequence[Order]) -> None:
        taken.extend(orders)

    consumer = OrderConsumer(
        lambda: kombu_connection(url, heartbeat=heartbeat, name="test orders"), host, take, health
    )
    thread = threading.Thread(target=consumer.run, args=(stop,), name="orders", daemon=True)
    thread.start()
    try:
        if wait:
            until(lambda: health.checks()[HEALTH].ok, "orders are taken", seconds=90)
        yield health
    finally:
        stop.set()
        thread.join(60)
