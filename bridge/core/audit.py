# SPDX-License-Identifier: Apache-2.0
"""The audit record: one per transition of an extend, in every part, with the same key names."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Self

from bridge.core.extend import ExtendKey
from bridge.core.trace import trace_id

SCHEMA: Final = 1


class AuditEvent(StrEnum):
    """Stable names of the transitions of an extend, in their usual order."""

    RECEIVED = "received"  # listener: a volume.resize.end was read
    SKIPPED = "skipped"  # listener: the message, or one of its rows, is not an extend; reason says why
    UNREADABLE = "unreadable"  # listener: the message was kept raw in the unreadable lane
    POSTED = "posted"  # listener, and engine beside Nova: the endpoint answered for this event
    HELD = "held"  # listener: the endpoint is unreachable; the event is held and tried again
    DEFERRED = "deferred"  # listener: the event went into the slow lane and is sent again after its step
    PARKED = "parked"  # listener: the event was put into the parked lane
    REPLAYED = "replayed"  # an operator sent the event again, from a recording or from the parked lane
    DISCARDED = "discarded"  # an operator removed the event, from the parked lane or from the journal
    ACCEPTED = "accepted"  # API: the event is committed to the journal
    REFUSED = "refused"  # API: the event got another code than 200
    WAITING = "waiting"  # engine: the extend cannot go on now; reason says what it waits for
    BEHIND = "behind"  # engine: reconciliation found the guest behind its volume and opened an extend
    SURVEYED = "surveyed"  # engine: a reconcile sweep over all volumes ended; data has its counts
    DISPATCHED = "dispatched"  # engine: an order went to a host
    OVERDUE = "overdue"  # engine: open for longer than it should be; a mark, the extend stays open
    STEP = "step"  # engine, from the host's report: one step on the host
    REPORTED = "reported"  # engine: a host reported an attempt
    LATE = "late"  # engine: a report for an attempt that no longer matters
    REOPENED = "reopened"  # engine: a newer generation makes the extend due again
    CLOSED = "closed"  # engine: the extend ended; outcome says how
    FILESYSTEM = (
        "filesystem"  # engine: the file system on a volume changed, or was grown; outcome says how it stands
    )
    ALARM = "alarm"  # engine: a host speaks for another, exceeds a limit, or contradicts a host; reason says which
    FAILED = "failed"  # engine: the extend ended as failed; `event retry` opens it again


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """One line of the audit log. Empty fields are left out of the line; `data` holds sizes and the like.

    The line has the trace id of `traceparent`.
    """

    event: AuditEvent
    at: float
    server: str | None = None
    volume: str | None = None
    host: str | None = None
    project: str | None = None
    extend_id: str | None = None
    message_id: str | None = None
    request_id: str | None = None
    global_request_id: str | None = None
    attempt: int | None = None
    attempt_id: str | None = None
    outcome: str | None = None
    reason: str | None = None
    seconds: float | None = None
    traceparent: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, key: ExtendKey | None, event: AuditEvent, at: float, **more: Any) -> Self:
        """Return the record of an event of a server and a volume; without `key`, of neither."""
        if key is not None:
            more |= {"server": key.server_id, "volume": key.volume_id}
        return cls(event=event, at=at, **more)

    def words(self) -> str:
        """Return the record as a line for a person: the event, the ids of its extend, outcome and reason."""
        said = [
            f"{name}={value}"
            for name in ("server", "volume", "host", "attempt", "outcome", "reason", "seconds", "global_request_id")
            if (value := getattr(self, name)) is not None
        ]
        return " ".join([self.event.value, *said, *(f"{key}={value}" for key, value in self.data.items())])

    def to_line(self, part: str) -> str:
        """Return the JSON line without its newline; JSON escapes the control characters of every value."""
        stamp = f"{datetime.fromtimestamp(self.at, UTC).isoformat(timespec='microseconds')[:-6]}Z"
        line: dict[str, Any] = {"schema": SCHEMA, "time": stamp, "part": part, "event": self.event.value}
        for name in _OPTIONAL:
            value = getattr(self, name)
            if value is not None:
                line[name] = round(value, 6) if name == "seconds" else value
        if self.traceparent is not None:
            line["trace_id"] = trace_id(self.traceparent)
        if self.data:
            line["data"] = dict(self.data)
        return _encode(line)


_encode: Final = json.JSONEncoder(separators=(",", ":"), default=str).encode
_OPTIONAL: Final = (
    "server", "volume", "host", "project", "extend_id", "message_id", "request_id", "global_request_id",
    "attempt", "attempt_id", "outcome", "reason", "seconds",
)  # fmt: skip
