# SPDX-License-Identifier: Apache-2.0
"""Our own queues beside the flow: parked (scrubbed, for a person) and unreadable (raw, for a week)."""

import json
import time
from collections.abc import Callable
from typing import Final

import kombu

from bridge.core.extend import ExtendKey
from bridge.core.reasons import Reason
from bridge.runtime.publisher import NotPublishedError, SafePublisher
from bridge.runtime.transport import BROKER_ERRORS, PARKED_QUEUE, UNREADABLE_QUEUE, QueueSpec, ensure_queue
from listener.parse import Origin

PARKED_VERSION: Final = 1
_WEEK: Final = 7 * 24 * 3600.0
_SPECS: Final = (QueueSpec(name=PARKED_QUEUE), QueueSpec(name=UNREADABLE_QUEUE, ttl=_WEEK))


def parked(reason: Reason, volume_id: str | None, server_id: str | None, origin: Origin, at: float) -> bytes:
    """Our own form of a message that waits for a person: checked ids, a reason, nothing of the payload."""
    return json.dumps(
        {
            "version": PARKED_VERSION,
            "parked_at": at,
            "reason": reason.value,
            "volume_id": volume_id,
            "server_id": server_id,
            "message_id": origin.message_id,
            "project": origin.project,
            "request_id": origin.request_id,
            "sent": origin.sent,
        }
    ).encode()


class Lanes:
    """Puts messages into the lanes; every method raises NotPublishedError, and then the message is still the
    caller's."""

    def __init__(self, connect: Callable[[], kombu.Connection], *, clock: Callable[[], float] = time.time) -> None:
        self._connect = connect
        self._clock = clock
        self._connection: kombu.Connection | None = None
        self._publisher: SafePublisher | None = None

    def park_event(self, key: ExtendKey, reason: Reason, origin: Origin) -> None:
        """An event the endpoint refused for good."""
        self._publish(PARKED_QUEUE, parked(reason, key.volume_id, key.server_id, origin, self._clock()))

    def park_message(self, volume_id: str | None, reason: Reason, origin: Origin) -> None:
        """A volume.resize.end nobody can act on."""
        self._publish(PARKED_QUEUE, parked(reason, volume_id, None, origin, self._clock()))

    def keep_raw(self, body: bytes, reason: Reason) -> None:
        """A message nobody can read, as it came."""
        self._publish(
            UNREADABLE_QUEUE, body, content_type="application/octet-stream", headers={"reason": reason.value}
        )

    def close(self) -> None:
        """Let go of the broker."""
        connection, self._connection, self._publisher = self._connection, None, None
        if connection is not None:
            connection.release()

    def _publish(
        self,
        queue: str,
        body: bytes,
        *,
        content_type: str = "application/json",
        headers: dict[str, str] | None = None,
    ) -> None:
        try:
            self._open().publish(queue, body, content_type=content_type, headers=headers)
        except NotPublishedError:
            self.close()  # the queue may be gone: it is looked for again
            raise
        except BROKER_ERRORS as ex:
            self.close()
            raise NotPublishedError(Reason.UNREACHABLE, queue, type(ex).__name__) from ex

    def _open(self) -> SafePublisher:
        if self._publisher is None:
            connection = self._connect()
            self._connection = connection
            for spec in _SPECS:
                ensure_queue(connection, spec)
            self._publisher = SafePublisher(connection)
        return self._publisher
