# SPDX-License-Identifier: Apache-2.0
"""Cinder's side of the bus: a recorded volume.resize.end for one's own volume, published as Cinder does."""

import json
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import kombu

from bridge.runtime.broker import kombu_connection
from bridge.runtime.bus_url import is_memory
from tests.lab.paths import ROOT

RECORDED: Final = ROOT / "tests" / "fixtures" / "cinder29" / "one_server.json"
EXCHANGE: Final = "openstack"


def resize_end(
    *,
    volume_id: str,
    server_id: str,
    attachment_id: str,
    host: str,
    size: int,
    recorded: Path = RECORDED,
    also: Iterable[tuple[str, str]] = (),
) -> tuple[bytes, str]:
    """The recorded message with these ids and this size (GiB), and the request id it carries.

    `also`: (server, attachment) of further rows, as of a volume that is attached more than once.
    """
    envelope: dict[str, Any] = json.loads(json.loads(recorded.read_text())["body"])
    message: dict[str, Any] = json.loads(envelope["oslo.message"])
    payload = message["payload"]
    (row,) = payload["volume_attachment"]
    request_id = f"req-{uuid.uuid4()}"
    message |= {
        "message_id": str(uuid.uuid4()),
        "_unique_id": uuid.uuid4().hex,
        "timestamp": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
        "_context_request_id": request_id,
    }
    row |= {"id": attachment_id, "volume_id": volume_id, "instance_uuid": server_id, "attached_host": host}
    row["volume"] |= {"id": volume_id, "size": size}
    payload |= {"volume_id": volume_id, "size": size}
    payload["volume_attachment"] += [{**row, "id": other, "instance_uuid": server} for server, other in also]
    return json.dumps({**envelope, "oslo.message": json.dumps(message)}).encode(), request_id


class CinderBus:
    """Publishes as oslo.messaging's notifier does: topic exchange and queue declared by the sender.

    Neither is durable, unless cinder.conf says so: `durable` is its [oslo_messaging_rabbit] amqp_durable_queues,
    `quorum` its rabbit_quorum_queue, which a cluster wants, and `delivery_limit` its rabbit_quorum_delivery_limit.
    """

    def __init__(
        self,
        url: str,
        topic: str = "extend_bridge",
        *,
        durable: bool = False,
        quorum: bool = False,
        delivery_limit: int | None = None,
        timeout: float | None = None,
    ) -> None:
        self._connection = kombu_connection(url, heartbeat=0, name="cinder")
        durable = durable or quorum
        exchange = kombu.Exchange(EXCHANGE, type="topic", durable=durable)
        arguments: dict[str, Any] = {"x-queue-type": "quorum"} if quorum else {}
        if delivery_limit is not None:
            arguments["x-delivery-limit"] = delivery_limit
        self._timeout = {} if timeout is None else {"timeout": timeout, "confirm_timeout": timeout}
        self._queues = [
            kombu.Queue(name, exchange=exchange, routing_key=name, durable=durable, queue_arguments=arguments)
            for name in (f"{topic}.info", f"{topic}.error")
        ]
        self._mandatory = {} if is_memory(url) else {"mandatory": True}
        self.declare()
        self._producer = self._connection.Producer(auto_declare=False)

    def declare(self) -> None:
        """Have exchange and queues, as after Cinder's first notification."""
        for queue in self._queues:
            queue(self._connection.default_channel).declare()

    def publish(
        self,
        body: bytes,
        *,
        priority: str = "info",
        content_type: str | None = "application/json",
        content_encoding: str | None = "utf-8",
        headers: dict[str, Any] | None = None,
    ) -> None:
        """Put one message on `<topic>.<priority>`; a priority without a queue of ours goes with the rest."""
        queue = self._queues[1] if priority == "error" else self._queues[0]
        self._producer.publish(
            body,
            exchange=queue.exchange.name,
            routing_key=queue.routing_key,
            content_type=content_type or "application/octet-stream",
            content_encoding=content_encoding or "binary",
            delivery_mode=2,
            headers=headers or {},
            **self._mandatory,
            **self._timeout,
        )

    def close(self) -> None:
        """Let go of the broker."""
        self._connection.release()
