# SPDX-License-Identifier: Apache-2.0
"""Our own queues beside the flow: slow (sent again later), parked (for a person), unreadable (raw, for a week)."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import kombu

from bridge.core.reasons import Reason
from bridge.runtime.publisher import NotPublishedError, SafePublisher
from bridge.runtime.transport import (
    BROKER_ERRORS,
    DUE_QUEUE,
    PARKED_QUEUE,
    UNREADABLE_QUEUE,
    QueueSpec,
    ensure_queue,
)
from listener.deferred import Deferred
from listener.parse import Origin
from listener.patience import Step

PARKED_VERSION: Final = 1
_WEEK: Final = 7 * 24 * 3600.0
DUE: Final = QueueSpec(name=DUE_QUEUE)
_ENDS: Final = (QueueSpec(name=PARKED_QUEUE), QueueSpec(name=UNREADABLE_QUEUE, ttl=_WEEK))
_SLOW: Final = (DUE, *(QueueSpec(name=step.queue, ttl=step.seconds, then=DUE.name) for step in Step))
"""Where the steps lead comes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """An event, or a volume.resize.end nobody can act on, that waits for a person.

    `server_id` None: not one event but the message; `volume_id` None: it names no volume. `mark` says what would
    have become of it elsewhere. `first_seen` in seconds since the epoch; `attempts` counts answers of the endpoint.
    """

    reason: Reason
    volume_id: str | None
    server_id: str | None
    origin: Origin
    first_seen: float
    attempts: int = 0
    mark: Reason | None = None

    def to_wire(self, now: float) -> bytes:
        """Our own form: checked ids and a reason, nothing of the payload."""
        return json.dumps(
            {
                "version": PARKED_VERSION,
                "reason": self.reason.value,
                "mark": self.mark.value if self.mark is not None else None,
                "volume_id": self.volume_id,
                "server_id": self.server_id,
                "first_seen": self.first_seen,
                "parked_at": now,
                "attempts": self.attempts,
                "message_id": self.origin.message_id,
                "project": self.origin.project,
                "request_id": self.origin.request_id,
                "global_request_id": self.origin.global_request_id,
                "sent": self.origin.sent,
            }
        ).encode()


class Lanes:
    """Puts messages into the lanes. Each method raises NotPublishedError; then the message is still the caller's.

    For one thread. Connects when first needed, which is seldom: with the heartbeat off (`connect` sees to that) a
    connection that died meanwhile shows at the next publish, which is then tried on a new one. `slow`: whether
    there is a slow lane; a broker inside this process has none.
    """

    def __init__(
        self,
        connect: Callable[[], kombu.Connection],
        *,
        slow: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._connect = connect
        self.slow: Final = slow
        self._clock = clock
        self._connection: kombu.Connection | None = None
        self._publisher: SafePublisher | None = None

    def defer(self, deferred: Deferred, step: Step) -> None:
        """Have it back after a while."""
        self._publish(step.queue, deferred.to_wire())

    def park(self, parked: Parked) -> None:
        """Keep it until a person takes it."""
        self._publish(PARKED_QUEUE, parked.to_wire(self._clock()))

    def keep_raw(self, body: bytes, reason: Reason) -> None:
        """Keep a message nobody can read, as it came. This lane is as secret as Cinder's own queue."""
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
            for spec in (*_ENDS, *(_SLOW if self.slow else ())):
                ensure_queue(connection, spec)
            self._publisher = SafePublisher(connection)
        return self._publisher
