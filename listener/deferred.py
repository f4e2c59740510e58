# SPDX-License-Identifier: Apache-2.0
"""An event in the slow lane, in a form of our own: checked ids, nothing of Cinder's payload."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bridge.core.extend import ExtendKey, clean_request_id, is_uuid
from bridge.core.reasons import Reason
from listener.parse import Origin, clean_stamp

DEFERRED_VERSION: Final = 1
_SIZE_MAX: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferred:
    """An event that is sent again after its step of the slow lane.

    `first_seen` in seconds since the epoch; `attempts` counts answers of the endpoint; `reason` is why it waits.
    """

    key: ExtendKey
    origin: Origin
    first_seen: float
    attempts: int
    reason: Reason

    def to_wire(self) -> bytes:
        """As it lies in the lane."""
        return json.dumps(
            {
                "version": DEFERRED_VERSION,
                "reason": self.reason.value,
                "server_id": self.key.server_id,
                "volume_id": self.key.volume_id,
                "first_seen": self.first_seen,
                "attempts": self.attempts,
                "message_id": self.origin.message_id,
                "project": self.origin.project,
                "request_id": self.origin.request_id,
                "global_request_id": self.origin.global_request_id,
                "sent": self.origin.sent,
            }
        ).encode()


def read_deferred(body: bytes, now: float) -> Deferred | None:
    """The event in a message of our lane; None where it is not one of ours, whoever put it there. Never raises.

    Keys this release does not know are ignored; a field that is not what it should be costs its own value only,
    as long as the event is named. A first_seen after `now` counts as now, or such an event would be tried for ever.
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
        origin=_origin(wire),
        first_seen=min(_number(wire.get("first_seen"), now), now),
        attempts=int(_number(wire.get("attempts"), 0)),
        reason=_reason(wire.get("reason")),
    )


def _origin(wire: Mapping[str, Any]) -> Origin:
    return Origin(
        message_id=clean_request_id(wire.get("message_id")),
        project=clean_request_id(wire.get("project")),
        request_id=clean_request_id(wire.get("request_id")),
        global_request_id=clean_request_id(wire.get("global_request_id")),
        sent=clean_stamp(wire.get("sent")),
    )


def _number(value: object, default: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return default
    return value if 0 <= value < 2**53 and math.isfinite(value) else default


def _reason(value: object) -> Reason:
    return next((reason for reason in Reason if reason.value == value), Reason.UNCERTAIN)
