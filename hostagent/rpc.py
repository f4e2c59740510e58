# SPDX-License-Identifier: Apache-2.0
"""Where orders come in: an oslo.messaging RPC server on this host's own queue."""

import itertools
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

import oslo_messaging
from oslo_config import cfg

from bridge.core.messages import VERSION, Order
from bridge.core.reasons import Reason
from bridge.core.wire import BadMessageError
from bridge.runtime.broker import AGENT_EXCHANGE, AGENT_TOPIC, BROKER_ERRORS, rpc_transport
from bridge.runtime.health import Health
from bridge.runtime.retry import Backoff

LOG = logging.getLogger(__name__)

HEALTH: Final = "hostagent.bus"
_THREADS: Final = 4  # the handler only reads and hands over


class ExtendEndpoint:
    """What the engine can call. Version 1.0: extend."""

    target = oslo_messaging.Target(version="1.0")

    def __init__(self, submit: Callable[[Sequence[Order]], None]) -> None:
        self._submit = submit

    def extend(self, ctxt: Any, orders: object = None, version: object = VERSION, **_newer: Any) -> None:
        """A cast: bring disks up to size. `orders` is a list of Order.to_wire(); unknown arguments are ignored."""
        del ctxt
        if not isinstance(version, int) or version > VERSION:
            LOG.error("orders of a version this agent cannot read (it reads up to %d); upgrade it", VERSION)
            return
        if not isinstance(orders, list):
            LOG.error("%s: orders is no list", Reason.BAD_ORDER.text)
            return
        if read := read_orders(orders):
            self._submit(read)


def read_orders(raw: Sequence[object]) -> list[Order]:
    """The orders that can be read; the others are logged, without a word of their content, and left out."""
    orders = []
    for number, item in enumerate(raw):
        try:
            orders.append(Order.from_wire(item))
        except BadMessageError as ex:
            LOG.error("%s: number %d of %d: %s", Reason.BAD_ORDER.text, number + 1, len(raw), ex)  # noqa: TRY400
    return orders


class RpcServer:
    """A part. Starting waits for the broker for ever, so it happens in a thread of its own."""

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        url: str,
        host: str,
        submit: Callable[[Sequence[Order]], None],
        health: Health,
    ) -> None:
        conf.set_default("executor_thread_pool_size", _THREADS)
        self._transport = rpc_transport(conf, url)
        self._host = host
        self._submit = submit
        self._health = health
        self._server: oslo_messaging.MessageHandlingServer | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="rpc-start", daemon=True)
        health.expect(HEALTH)

    def start(self) -> None:
        """Begin to listen as soon as the broker is there."""
        self._health.bad(HEALTH, "waiting for the broker")
        self._thread.start()

    def stop(self) -> None:
        """Take no more orders."""
        self._stopping.set()
        if self._server is not None:
            self._server.stop()

    def join(self, seconds: float) -> bool:
        """Wait for the orders just read. A server that never got its broker is left behind, it holds nothing."""
        del seconds
        if self._server is not None:
            self._server.wait()
            self._transport.cleanup()
        return True

    def _listen(self) -> None:
        """oslo.messaging waits for a broker that is away, and raises where one refuses us: that is mended there."""
        away = Backoff(first=1, cap=30, floor=0.2)
        for failures in itertools.count(1):
            server = self._new_server()
            try:
                server.start()
            except (oslo_messaging.MessagingException, *BROKER_ERRORS) as ex:
                reason = " ".join(str(ex).split())
                self._health.bad(HEALTH, f"the broker refuses us, or we it: {reason}")
                if self._stopping.wait(away.delay(failures)):
                    return
                continue
            self._server = server
            if self._stopping.is_set():
                server.stop()
                return
            self._health.ok(HEALTH)
            LOG.info("taking orders for host %s", self._host)
            return

    def _new_server(self) -> oslo_messaging.MessageHandlingServer:
        return oslo_messaging.get_rpc_server(
            self._transport,
            oslo_messaging.Target(exchange=AGENT_EXCHANGE, topic=AGENT_TOPIC, server=self._host),
            [ExtendEndpoint(self._submit)],
            executor="threading",
        )
