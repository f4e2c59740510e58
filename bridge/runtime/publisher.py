# SPDX-License-Identifier: Apache-2.0
"""Safe publish: when `publish` returns, the broker has the message in the queue.

Safe means mandatory, confirmed, not returned and not nacked. A confirm alone is positive for a missing queue too.
The broker sends the return before the confirm. One message is on its way at a time, so both belong to that message.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Self, TypedDict, Unpack

import kombu
from amqp.exceptions import AccessRefused, MessageNacked, NotFound

from bridge.core.reasons import Reason
from bridge.runtime.amqp_socket import BoundedConnection, ConnectionBlockedError
from bridge.runtime.broker import BROKER_ERRORS, is_memory_connection
from bridge.runtime.bus_url import failure_words

_JSON: Final = "application/json"
_TIMEOUT: Final = 10.0
"""Seconds from the call to the broker's confirm."""
_REUSED: Final = 5.0
"""Seconds for a connection that was used before. If it has turned silent, a new connection is as safe."""
_BLOCKED_FOR: Final = 30.0
"""Seconds until a blocked connection is given up. Each one given up may leave a copy of its message behind."""
_LOOK: Final = 0.05  # seconds


class NotPublishedError(Exception):
    """An error that the broker does not have the message. `reason` tells why; a retry is safe."""

    def __init__(self, reason: Reason, queue: str, detail: str = "") -> None:
        super().__init__(f"{queue}: {reason.text}{f' ({detail})' if detail else ''}")
        self.reason = reason


class PublishOptions(TypedDict, total=False):
    """Options of one message. `routing_key` leads from the exchange to the queue, if it is not the queue's name."""

    content_type: str  # JSON by default
    headers: dict[str, Any] | None
    exchange: str  # the default exchange by default
    routing_key: str | None


class SafePublisher:
    """A publisher to the bridge's queues, through the default exchange unless another is named. For one thread.

    The publisher uses the connection it is given. After a timeout the connection is dropped, and the next publish
    makes a new one.
    """

    def __init__(self, connection: kombu.Connection, *, timeout: float = _TIMEOUT) -> None:
        self._connection = connection
        self._timeout = timeout
        self._channel: Any = None
        self._returned: list[str] = []

    def publish(
        self, queue: str, body: bytes, *, timeout: float | None = None, **options: Unpack[PublishOptions]
    ) -> None:
        """Put one message into `queue`; raises NotPublishedError. A bus in memory has the default exchange only."""
        exchange = options.get("exchange", "")
        try:
            with _limit(self._connection, timeout or self._timeout):
                self._publish(queue, body, options, timeout or self._timeout)
        except MessageNacked as ex:
            raise NotPublishedError(Reason.NACKED, queue) from ex
        except NotFound as ex:
            self.close()
            raise NotPublishedError(Reason.RETURNED, queue, f"no exchange {exchange}") from ex
        except AccessRefused as ex:
            self.close()
            raise NotPublishedError(Reason.NOT_PERMITTED, queue, f"exchange {exchange or 'amq.default'}") from ex
        except ConnectionBlockedError as ex:
            self._channel = None  # its confirm may still come, and must not be taken for another message's
            raise NotPublishedError(Reason.BUS_BLOCKED, queue, str(ex.reply_text)) from ex
        except BROKER_ERRORS as ex:
            self._channel = None
            self._connection.collect()
            raise NotPublishedError(Reason.BUS_UNREACHABLE, queue, failure_words(ex)) from ex

    def look(self, *, timeout: float | None = None) -> None:
        """Have the broker answer on this connection, without a message; raises NotPublishedError."""
        if is_memory_connection(self._connection):
            return
        try:
            with _limit(self._connection, timeout or self._timeout):
                self._ready_channel().basic_qos(0, 0, False)  # changes nothing: this channel does not consume
        except BROKER_ERRORS as ex:
            self._channel = None
            self._connection.collect()
            raise NotPublishedError(Reason.BUS_UNREACHABLE, "our bus", failure_words(ex)) from ex

    def close(self) -> None:
        """Close the channel; the connection stays with its owner."""
        channel, self._channel = self._channel, None
        if channel is not None:
            try:
                channel.close()
            except BROKER_ERRORS:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _publish(self, queue: str, body: bytes, options: PublishOptions, timeout: float) -> None:
        content_type = options.get("content_type", _JSON)
        channel = self._ready_channel()
        self._returned.clear()
        memory = is_memory_connection(self._connection)
        kombu.Producer(channel, auto_declare=False).publish(
            body,
            exchange="" if memory else options.get("exchange", ""),
            routing_key=queue if memory else options.get("routing_key") or queue,
            content_type=content_type,
            content_encoding="utf-8" if content_type == _JSON and not memory else "binary",
            delivery_mode=2,
            headers=options.get("headers") or {},
            **({} if memory else {"mandatory": True, "timeout": timeout, "confirm_timeout": timeout}),
        )
        if self._returned:
            raise NotPublishedError(Reason.RETURNED, queue, self._returned[0])

    def _ready_channel(self) -> Any:
        if self._channel is None:
            channel = self._connection.channel()
            if not is_memory_connection(self._connection):
                channel.events["basic_return"].add(self._on_return)
            self._channel = channel
        return self._channel

    def _on_return(self, exception: Exception, exchange: str, routing_key: str, message: object) -> None:
        del exchange, routing_key, message
        self._returned.append(type(exception).__name__)


class BusPublisher:
    """A safe publisher with its own connection, which is made at first use. For one thread.

    `prepare` declares the queues and exchanges that are published to. A connection that died while idle fails at
    the next publish, which is tried once more on a new connection. While the broker blocks the connection, the
    connection is kept and read. A new connection for each try would leave a copy of the message behind each time.
    """

    def __init__(
        self,
        connect: Callable[[], kombu.Connection],
        *,
        prepare: Callable[[kombu.Connection], None] = lambda _connection: None,
        on_blocked: Callable[[bool], None] = lambda _blocked: None,
        timeout: float = _TIMEOUT,
    ) -> None:
        self._connect = connect
        self._prepare = prepare
        self._on_blocked = on_blocked
        self._timeout = timeout
        self._connection: kombu.Connection | None = None
        self._publisher: SafePublisher | None = None
        self._blocked_at: float | None = None

    def publish(self, queue: str, body: bytes, **options: Unpack[PublishOptions]) -> None:
        """Put one message into `queue`; raises NotPublishedError."""

        def send(publisher: SafePublisher, timeout: float | None) -> None:
            publisher.publish(queue, body, timeout=timeout, **options)

        self._send(queue, send)

    def look(self) -> None:
        """Have the broker answer on this publisher's connection, without a message; raises NotPublishedError."""
        self._send("our bus", lambda publisher, timeout: publisher.look(timeout=timeout))

    def _send(self, queue: str, send: Callable[[SafePublisher, float | None], None]) -> None:
        self._look_at_the_block(queue)
        reused = self._publisher is not None
        try:
            self._once(queue, send, min(_REUSED, self._timeout) if reused else None)
        except NotPublishedError as ex:
            if not reused or ex.reason is not Reason.BUS_UNREACHABLE:
                raise
            self._once(queue, send, None)

    def close(self) -> None:
        """Close the connection of this publisher."""
        connection, self._connection, self._publisher = self._connection, None, None
        self._unblocked()
        if connection is not None:
            connection.release()

    def _once(self, queue: str, send: Callable[[SafePublisher, float | None], None], timeout: float | None) -> None:
        try:
            send(self._open(), timeout)
        except NotPublishedError as ex:
            if ex.reason is Reason.BUS_BLOCKED:
                self._blocked_at = time.monotonic()
                self._on_blocked(True)
            else:
                self._drop()  # a queue may be gone, so it is declared again
            raise
        except BROKER_ERRORS as ex:
            self._drop()
            raise NotPublishedError(Reason.BUS_UNREACHABLE, queue, failure_words(ex)) from ex

    def _open(self) -> SafePublisher:
        if self._publisher is None:
            connection = self._connect()
            self._connection = connection
            connection.connect()
            self._prepare(connection)
            if not is_memory_connection(connection):
                connection.connection.publishing = True
            self._publisher = SafePublisher(connection, timeout=self._timeout)
        return self._publisher

    def _drop(self) -> None:
        """Forget the connection without a message to a broker that may not listen."""
        connection, self._connection, self._publisher = self._connection, None, None
        self._unblocked()
        if connection is not None:
            connection.collect()

    def _unblocked(self) -> None:
        if self._blocked_at is not None:
            self._blocked_at = None
            self._on_blocked(False)

    def _look_at_the_block(self, queue: str) -> None:
        """Refuse while the broker blocks the connection; after the block, start on a new connection."""
        connection = self._connection
        if self._blocked_at is None or connection is None:
            return
        bounded: BoundedConnection = connection.connection
        reason = bounded.blocked
        try:
            bounded.publishing = False
            bounded.drain_events(timeout=_LOOK)
        except TimeoutError:
            pass
        except BROKER_ERRORS:
            bounded.blocked = None
        finally:
            bounded.publishing = True
        if bounded.blocked is not None and time.monotonic() - self._blocked_at < _BLOCKED_FOR:
            raise NotPublishedError(Reason.BUS_BLOCKED, queue, reason or "")
        self._drop()


@contextmanager
def _limit(connection: kombu.Connection, seconds: float) -> Iterator[None]:
    """Bound a publish as a whole: its channel, its frames, its confirm."""
    bounded = None if is_memory_connection(connection) or not connection.connected else connection.connection
    if isinstance(bounded, BoundedConnection):
        with bounded.within(seconds):
            yield
    else:
        yield
