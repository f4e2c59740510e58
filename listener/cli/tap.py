# SPDX-License-Identifier: Apache-2.0
"""`extend-bridge record`: a copy of what Cinder says, through a queue that only we have and that goes with us."""

import json
import threading
import time
from collections.abc import Callable
from typing import IO, Final

import kombu

from bridge.core.errors import OperatorError
from bridge.core.extend import new_id
from bridge.runtime.as_sent import COMPRESSION, as_sent
from bridge.runtime.transport import BROKER_ERRORS
from listener.cli.notification import scrubbed
from listener.inflate import inflated
from listener.parse import ResizeEnd, parse
from listener.prefilter import is_other_event

_MAX_BYTES: Final = 16 * 1024 * 1024
_MAX_ROWS: Final = 10_000
_BACKLOG: Final = 100_000  # messages the broker keeps for us when we are slow; then the oldest go


class Tap:
    """Takes copies of notifications and writes each volume.resize.end as a line, in our own scrubbed form."""

    def __init__(self, output: IO[str], *, wanted: Callable[[ResizeEnd], bool], count: int | None) -> None:
        self._output = output
        self._wanted = wanted
        self._count = count
        self.seen = 0
        self.written = 0

    @property
    def full(self) -> bool:
        """Whether it has as many as were asked for."""
        return self._count is not None and self.written >= self._count

    def take(self, body: bytes, compression: object = None) -> None:
        """One message. `compression`: what its header says of the body."""
        self.seen += 1
        if compression is not None:
            body = inflated(body, compression, _MAX_BYTES) or b""
        if self.full or is_other_event(body):
            return
        read = parse(body, max_bytes=_MAX_BYTES, max_rows=_MAX_ROWS)
        if not isinstance(read, ResizeEnd) or not self._wanted(read):
            return
        row = {
            "captured_at": time.time(),
            "routing_key": "notifications.info",
            "properties": {"content_type": "application/json", "content_encoding": "utf-8"},
            "body": scrubbed(read).decode(),
        }
        self._output.write(f"{json.dumps(row)}\n")
        self._output.flush()
        self.written += 1


def record(
    connection: kombu.Connection,
    tap: Tap,
    *,
    exchange: str,
    topic: str,
    seconds: float | None,
    stop: threading.Event,
) -> None:
    """Until told to stop, or the tap is full, or the time is over. Raises OperatorError.

    The queue is exclusive, bounded, and gone with the connection; Cinder's exchange is only bound to.
    """
    deadline = time.monotonic() + seconds if seconds is not None else None
    try:
        with connection, connection.channel() as channel:
            queue = kombu.Queue(
                f"extend_bridge.record.{new_id()}",
                channel=channel,
                exclusive=True,
                auto_delete=True,
                durable=False,
                queue_arguments={"x-max-length": _BACKLOG},
            )
            queue.queue_declare()
            queue.bind_to(exchange=exchange, routing_key=f"{topic}.info")
            consumer = kombu.Consumer(
                as_sent(channel), [kombu.Queue(queue.name, no_declare=True)],
                no_ack=True, accept=None, auto_declare=False,
                on_message=lambda message: tap.take(_bytes(message.body), message.headers.get(COMPRESSION)),
            )  # fmt: skip
            with consumer:
                while not stop.is_set() and not tap.full and (deadline is None or time.monotonic() < deadline):
                    _drain(connection)
    except connection.channel_errors as ex:
        raise OperatorError(
            f"no exchange {exchange} on this bus, or our user may not bind to it ({type(ex).__name__})", code=3
        ) from ex
    except BROKER_ERRORS as ex:
        raise OperatorError(f"the notification bus cannot be reached: {type(ex).__name__}", code=3) from ex


def _drain(connection: kombu.Connection) -> None:
    connection.heartbeat_check()
    try:
        connection.drain_events(timeout=0.5)
    except TimeoutError:
        return


def _bytes(body: object) -> bytes:
    return body if isinstance(body, bytes) else str(body).encode()
