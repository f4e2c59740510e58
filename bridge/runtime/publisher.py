# SPDX-License-Identifier: Apache-2.0
"""Safe publish: when `publish` returns, the broker has the message in the queue.

Mandatory, confirmed, not returned, not nacked. A confirm alone is positive also for a missing queue. The broker
sends the return before the confirm, so both belong to the message just sent: one is on its way at a time.
"""

from types import TracebackType
from typing import Any, Final, Self

import kombu
from amqp.exceptions import AccessRefused, MessageNacked, NotFound

from bridge.core.reasons import Reason
from bridge.runtime.broker import BROKER_ERRORS, is_memory_connection

_JSON: Final = "application/json"


class NotPublishedError(Exception):
    """The broker does not have the message. `reason` says why; it is safe to try again."""

    def __init__(self, reason: Reason, queue: str, detail: str = "") -> None:
        super().__init__(f"{queue}: {reason.text}{f' ({detail})' if detail else ''}")
        self.reason = reason


class SafePublisher:
    """Publishes bytes to queues of our own, through the default exchange unless told otherwise. For one thread.

    Uses the connection it is given; after a broker error the channel is made anew at the next publish.
    """

    def __init__(self, connection: kombu.Connection, *, timeout: float = 10.0) -> None:
        self._connection = connection
        self._timeout = timeout
        self._channel: Any = None
        self._returned: list[str] = []

    def publish(
        self,
        queue: str,
        body: bytes,
        *,
        content_type: str = _JSON,
        headers: dict[str, Any] | None = None,
        exchange: str = "",
    ) -> None:
        """Put one message into `queue`; raises NotPublishedError. A bus in memory has the default exchange only."""
        try:
            self._publish(queue, body, content_type, headers or {}, exchange)
        except MessageNacked as ex:
            raise NotPublishedError(Reason.NACKED, queue) from ex
        except NotFound as ex:
            self.close()
            raise NotPublishedError(Reason.RETURNED, queue, f"no exchange {exchange}") from ex
        except AccessRefused as ex:
            self.close()
            raise NotPublishedError(Reason.NOT_PERMITTED, queue, f"exchange {exchange or 'amq.default'}") from ex
        except BROKER_ERRORS as ex:
            self.close()
            raise NotPublishedError(Reason.UNREACHABLE, queue, type(ex).__name__) from ex

    def close(self) -> None:
        """Give the channel back; the connection stays with its owner."""
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

    def _publish(self, queue: str, body: bytes, content_type: str, headers: dict[str, Any], exchange: str) -> None:
        channel = self._ready_channel()
        self._returned.clear()
        memory = is_memory_connection(self._connection)
        kombu.Producer(channel, auto_declare=False).publish(
            body,
            exchange="" if memory else exchange,
            routing_key=queue,
            content_type=content_type,
            content_encoding="utf-8" if content_type == _JSON and not memory else "binary",
            delivery_mode=2,
            headers=headers,
            **({} if memory else {"mandatory": True, "timeout": self._timeout, "confirm_timeout": self._timeout}),
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
