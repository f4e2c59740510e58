# SPDX-License-Identifier: Apache-2.0
"""The lanes on our own bus: slow (sent again later), parked (for a person), unreadable (raw, for a week).

Messages in the slow and parked lanes have our own form: checked ids, no part of Cinder's payload.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import kombu

from bridge.core.extend import ExtendKey, is_uuid
from bridge.core.reasons import Reason
from bridge.runtime.broker import DUE_QUEUE, PARKED_QUEUE, UNREADABLE_QUEUE, QueueSpec, ensure_queue
from bridge.runtime.publisher import BusPublisher
from listener.notification import Origin
from listener.retry_policy import SlowDelay

DEFERRED_VERSION: Final = 1
_SIZE_MAX: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferred:
    """An event that is sent again after its delay in the slow lane.

    `first_seen` in seconds since the epoch. `attempts` counts answers of the endpoint. `reason`: cause of the wait.
    """

    key: ExtendKey
    origin: Origin
    first_seen: float
    attempts: int
    reason: Reason

    def to_wire(self) -> bytes:
        """Return the message body for the lane."""
        return json.dumps(
            {
                "version": DEFERRED_VERSION,
                "reason": self.reason.value,
                "server_id": self.key.server_id,
                "volume_id": self.key.volume_id,
                "first_seen": self.first_seen,
                "attempts": self.attempts,
                **self.origin.to_wire(),
            }
        ).encode()


def read_deferred(body: bytes, now: float) -> Deferred | None:
    """Read an event of the slow lane; None for a message that is not in our form. Never raises.

    Unknown keys are ignored. A field of a wrong type gets its default value, as long as the event is named. A
    first_seen after `now` counts as now, because otherwise the event would be tried for ever.
    """
    if len(body) > _SIZE_MAX:
        return None
    try:
        wire = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(wire, Mapping) or wire.get("version") != DEFERRED_VERSION:
        return None
    server_id, volume_id = wire.get("server_id"), wire.get("volume_id")
    if not is_uuid(server_id) or not is_uuid(volume_id):
        return None
    return Deferred(
        key=ExtendKey(str(server_id).lower(), str(volume_id).lower()),
        origin=Origin.from_wire(wire),
        first_seen=min(_number(wire.get("first_seen"), now), now),
        attempts=int(_number(wire.get("attempts"), 0)),
        reason=_reason(wire.get("reason")),
    )


def _number(value: object, default: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return default
    return value if 0 <= value < 2**53 and math.isfinite(value) else default


def _reason(value: object) -> Reason:
    return next((reason for reason in Reason if reason.value == value), Reason.UNCERTAIN)


PARKED_VERSION: Final = 1
_WEEK: Final = 7 * 24 * 3600.0
DUE: Final = QueueSpec(name=DUE_QUEUE)
_ENDS: Final = (QueueSpec(name=PARKED_QUEUE), QueueSpec(name=UNREADABLE_QUEUE, ttl=_WEEK))
_SLOW: Final = (DUE, *(QueueSpec(name=step.queue, ttl=step.seconds, then=DUE.name) for step in SlowDelay))
"""The queues of the slow lane, with the target queue of the delays first."""
LANES: Final = (*_ENDS, *_SLOW)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """An event, or a volume.resize.end that cannot be acted on, that waits for a person.

    `server_id` is None for a whole message, `volume_id` None where the message names no volume. `mark`: the cause
    of parking a message that another bus would have kept in its slow lane. `first_seen` in seconds since the epoch;
    `attempts` counts answers of the endpoint.
    """

    reason: Reason
    volume_id: str | None
    server_id: str | None
    origin: Origin
    first_seen: float
    attempts: int = 0
    mark: Reason | None = None

    def to_wire(self, now: float) -> bytes:
        """Return the message body: checked ids and a reason, no part of the payload."""
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
                **self.origin.to_wire(),
            }
        ).encode()


class Lanes:
    """A publisher into the lanes. After NotPublishedError the caller still owns the message.

    For one thread. Connects when first needed. The heartbeat is off, so a dead connection shows at the next
    publish, which is repeated on a new connection. `slow`: False for a broker inside this process, which
    has no slow lane.
    """

    def __init__(
        self,
        connect: Callable[[], kombu.Connection],
        *,
        slow: bool = True,
        on_blocked: Callable[[bool], None] = lambda _blocked: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.slow: Final = slow
        self._clock = clock
        self._publisher = BusPublisher(connect, prepare=self._have_queues, on_blocked=on_blocked)

    def defer(self, deferred: Deferred, step: SlowDelay) -> None:
        """Put an event into the slow lane."""
        self._publish(step.queue, deferred.to_wire())

    def park(self, parked: Parked) -> None:
        """Put an event or message into the parked lane."""
        self._publish(PARKED_QUEUE, parked.to_wire(self._clock()))

    def keep_raw(self, body: bytes, reason: Reason) -> None:
        """Put a message into the unreadable lane, as received. This lane is as secret as Cinder's own queue."""
        self._publish(
            UNREADABLE_QUEUE, body, content_type="application/octet-stream", headers={"reason": reason.value}
        )

    def close(self) -> None:
        """Close the connection, if any."""
        self._publisher.close()

    def _publish(
        self,
        queue: str,
        body: bytes,
        *,
        content_type: str = "application/json",
        headers: dict[str, str] | None = None,
    ) -> None:
        self._publisher.publish(queue, body, content_type=content_type, headers=headers)

    def _have_queues(self, connection: kombu.Connection) -> None:
        for spec in (*_ENDS, *(_SLOW if self.slow else ())):
            ensure_queue(connection, spec)
