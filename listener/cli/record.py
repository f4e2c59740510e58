# SPDX-License-Identifier: Apache-2.0
"""`extend-bridge record`: a copy of Cinder's notifications, through an exclusive queue that ends with the command.

Recorded and replayed notifications have our own form: the fields that the parser keeps of Cinder's, and no others.
So a secret cannot be in a recording, whatever Cinder sends.
"""

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import kombu
from amqp.exceptions import NotFound
from cliff.command import Command

from bridge.core.errors import OperatorError
from bridge.core.extend import new_id
from bridge.runtime import commands, config
from bridge.runtime.broker import BROKER_ERRORS, kombu_connection
from bridge.runtime.bus_url import check_url
from bridge.runtime.raw_messages import COMPRESSION, as_sent, body_bytes
from listener.notification import EVENT_TYPE, Origin, ResizeEnd, Row, inflated, is_other_event, parse
from listener.settings import listener_groups, listener_settings


def notification(volume_id: str, rows: Sequence[Row], *, size: int | None, origin: Origin) -> bytes:
    """Return a volume.resize.end in oslo.messaging's envelope that parses to the same values."""
    message: dict[str, Any] = {
        "event_type": EVENT_TYPE,
        "message_id": origin.message_id,
        "publisher_id": "extend-bridge",
        "priority": "INFO",
        "timestamp": origin.sent,
        "_context_request_id": origin.request_id,
        "_context_global_request_id": origin.global_request_id,
        "payload": {
            "volume_id": volume_id,
            "size": size,
            "tenant_id": origin.project,
            "volume_attachment": [_row(row) for row in rows],
        },
    }
    return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(message)}).encode()


def scrubbed(end: ResizeEnd) -> bytes:
    """Return the same volume.resize.end with only the fields that the parser knows."""
    return notification(end.volume_id, end.rows, size=end.size, origin=end.origin)


def _row(row: Row) -> dict[str, Any] | None:
    if not row.readable:
        return None
    return {"instance_uuid": row.server_id, "attach_status": "attached" if row.attached else "detached"}


_MAX_BYTES: Final = 16 * 1024 * 1024
_MAX_ROWS: Final = 10_000
_BACKLOG: Final = 100_000  # messages the broker keeps for a slow recorder; above it the oldest are dropped


class Tap:
    """The recorder: takes copies of notifications, and writes each volume.resize.end as a line in scrubbed form."""

    def __init__(self, output: IO[str], *, wanted: Callable[[ResizeEnd], bool], count: int | None) -> None:
        self._output = output
        self._wanted = wanted
        self._count = count
        self.seen = 0
        self.written = 0

    @property
    def full(self) -> bool:
        """True once the wanted number of notifications is written."""
        return self._count is not None and self.written >= self._count

    def take(self, body: bytes, compression: object = None) -> None:
        """Take one message. `compression`: the value of its compression header."""
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
    """Record until told to stop, or the tap is full, or the time is over. Raises OperatorError.

    The queue is exclusive, bounded, and ends with the connection. Cinder's exchange is only bound, never declared.
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
                on_message=lambda message: tap.take(body_bytes(message), message.headers.get(COMPRESSION)),
            )  # fmt: skip
            with consumer:
                while not stop.is_set() and not tap.full and (deadline is None or time.monotonic() < deadline):
                    _drain(connection)
    except NotFound as ex:
        raise OperatorError(
            f"the notification bus has no exchange {exchange}: set [notifications] exchange to Cinder's "
            "control_exchange; Cinder declares it with its first notification",
            code=3,
        ) from ex
    except BROKER_ERRORS as ex:
        words = commands.broker_words(ex, "[notifications] transport_url")
        raise OperatorError(f"the notification bus: {words}", code=3) from ex


def _drain(connection: kombu.Connection) -> None:
    connection.heartbeat_check()
    try:
        connection.drain_events(timeout=0.5)
    except TimeoutError:
        return


class RecordCommand(Command):  # type: ignore[misc,unused-ignore]
    """Record Cinder's extends from the notification bus, without secrets. Other consumers still get all."""

    _epilog = "Example: extend-bridge record --for 1h --output resizes.jsonl"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        commands.add_config_option(parser)
        parser.add_argument("--output", "-o", metavar="FILE", help="append to this file (default: standard output)")
        parser.add_argument(
            "--filter",
            action="append",
            default=[],
            metavar="ID",
            help="only events of this volume or server; may be given several times",
        )
        parser.add_argument(
            "--for", dest="seconds", metavar="TIME", help="end after this time, such as 90s, 15m, 2h or 7d"
        )
        parser.add_argument("--count", type=commands.positive, metavar="N", help="end after N messages")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        conf = commands.load(parsed_args, listener_groups())
        settings = config.read(conf, listener_settings)
        check_url(settings.transport_url, "[notifications] transport_url")
        commands.outside(settings.transport_url, "[notifications] transport_url")
        wanted = frozenset(text.lower() for text in parsed_args.filter)
        seconds = commands.seconds(parsed_args.seconds, "--for") if parsed_args.seconds else None

        def is_wanted(end: ResizeEnd) -> bool:
            return not wanted or end.volume_id in wanted or any(row.server_id in wanted for row in end.rows)

        connection = kombu_connection(
            settings.transport_url, heartbeat=settings.bus.heartbeat, name="extend-bridge record"
        )
        with _output(parsed_args.output) as output, commands.stoppable() as stop:
            tap = Tap(output, wanted=is_wanted, count=parsed_args.count)
            record(connection, tap, exchange=settings.exchange, topic=settings.topic, seconds=seconds, stop=stop)
        self.app.stderr.write(f"{tap.seen} notifications seen, {tap.written} extends recorded\n")
        return 0


@contextmanager
def _output(name: str | None) -> Iterator[IO[str]]:
    if name is None:
        yield sys.stdout
        return
    try:
        with Path(name).open("a") as file:
            Path(name).chmod(0o600)
            yield file
    except OSError as ex:
        raise OperatorError(f"{name} cannot be written: {ex.strerror}") from ex
