# SPDX-License-Identifier: Apache-2.0
"""Cinder's side of a notification bus, for tests of any listener: messages of a real Cinder 29.

The recording holds 25 messages, including noise and unusual attachments. Its secrets are invented.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any, Final

import kombu

from bridge.core.extend import new_id
from bridge.runtime.broker import kombu_connection
from bridge.runtime.bus_url import is_memory

EXCHANGE: Final = "openstack"
_MEMORY_URL: Final = "kombu+memory:////"
"""oslo.messaging's URL of kombu's memory transport, for a listener in this process."""
_RESIZE_END: Final = "volume.resize.end"
_PRIORITIES: Final = ("info", "error")


@dataclass(frozen=True, slots=True)
class RecordedMessage:
    """A message in the form in which Cinder sent the message. `priority`: info or error."""

    body: bytes
    priority: str

    @property
    def notification(self) -> Mapping[str, Any]:
        """The notification inside oslo.messaging's envelope."""
        found: Mapping[str, Any] = json.loads(json.loads(self.body)["oslo.message"])
        return found


@cache
def recorded_messages() -> tuple[RecordedMessage, ...]:
    """Return the recorded messages, in order."""
    text = resources.files(__package__ or "bridge.standin").joinpath("recorded.jsonl").read_text()
    rows = map(json.loads, text.splitlines())
    return tuple(RecordedMessage(row["body"].encode(), row["routing_key"].rpartition(".")[2]) for row in rows)


def resize_end_message(volume_id: str, size: int, servers: Sequence[str], *, host: str) -> tuple[bytes, str]:
    """Return the body of a volume.resize.end with these ids and this size (GiB), and its request id."""
    envelope = json.loads(_template().body)
    message = json.loads(envelope["oslo.message"])
    payload = message["payload"]
    [row] = payload["volume_attachment"]
    request_id = f"req-{new_id()}"
    message |= {
        "message_id": new_id(),
        "_unique_id": new_id().replace("-", ""),
        "timestamp": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
        "_context_request_id": request_id,
    }
    row["volume"] |= {"id": volume_id, "size": size}
    row |= {"volume_id": volume_id, "attached_host": host}
    rows = [{**row, "id": new_id(), "instance_uuid": server} for server in servers]
    payload |= {"volume_id": volume_id, "size": size, "volume_attachment": rows}
    return json.dumps({**envelope, "oslo.message": json.dumps(message)}).encode(), request_id


@cache
def _template() -> RecordedMessage:
    return next(
        message
        for message in recorded_messages()
        if message.notification["event_type"] == _RESIZE_END
        and len(message.notification["payload"]["volume_attachment"]) == 1
    )


class NotificationBus:
    """A publisher of notifications like Cinder.

    The publisher declares the exchange and the queues. Both are not durable.

    `url`: an oslo.messaging transport_url of RabbitMQ, or `memory://` for a bus inside this process.
    """

    def __init__(self, url: str = "memory://", topic: str = "notifications") -> None:
        self.topic: Final = topic
        self.listener_url: Final = _MEMORY_URL if is_memory(url) else url
        """The transport_url for an oslo.messaging listener under test."""
        self._connection = kombu_connection(url, heartbeat=0, name="extend-bridge cinder_bus")
        exchange = kombu.Exchange(EXCHANGE, type="topic", durable=False)
        self._queues = {
            priority: kombu.Queue(name, exchange=exchange, routing_key=name, durable=False)
            for priority, name in ((priority, f"{topic}.{priority}") for priority in _PRIORITIES)
        }
        for queue in self._queues.values():
            queue(self._connection.default_channel).declare()
        self._producer = self._connection.Producer(auto_declare=False)

    def publish(self, body: bytes, *, priority: str = "info") -> None:
        """Publish one message in the form of oslo.messaging's notifier."""
        queue = self._queues[priority]
        self._producer.publish(
            body,
            exchange=EXCHANGE,
            routing_key=queue.routing_key,
            content_type="application/json",
            content_encoding="utf-8",
            delivery_mode=2,
        )

    def extend(self, volume_id: str, size: int, *servers: str, host: str = "cmp-1") -> str:
        """Publish the volume.resize.end of a volume attached to these servers; return the user's request id."""
        body, request_id = resize_end_message(volume_id, size, servers, host=host)
        self.publish(body)
        return request_id

    def play(self) -> Iterator[RecordedMessage]:
        """Publish the recorded messages one by one; yield each message after its publication."""
        for message in recorded_messages():
            self.publish(message.body, priority=message.priority)
            yield message

    def close(self) -> None:
        """Delete the queues and close the connection."""
        for queue in self._queues.values():
            queue(self._connection.default_channel).delete()
        self._connection.release()
