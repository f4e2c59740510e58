# SPDX-License-Identifier: Apache-2.0
"""The reader of one audit line. The reader is tolerant, because a newer release may have written the line."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Entry:
    """An audit record read from a log. `event` stays text, because unknown events are shown, not refused."""

    at: float
    part: str
    event: str
    server: str | None
    volume: str | None
    host: str | None
    extend_id: str | None
    message_id: str | None
    request_id: str | None
    global_request_id: str | None
    attempt: int | None
    outcome: str | None
    reason: str | None
    seconds: float | None
    data: Mapping[str, Any]
    trace_id: str | None = None

    def names(self, needle: str) -> bool:
        """Return whether this line is about that volume, server, request, message, extend, trace or host."""
        return needle in {
            self.volume, self.server, self.request_id, self.global_request_id, self.message_id, self.extend_id,
            self.host, self.data.get("posted_as"), self.trace_id,
        }  # fmt: skip


def read_entry(line: bytes) -> Entry | None:
    """Parse an audit line; return None when the line is not an audit record."""
    try:
        raw = json.loads(line)
        at = stamp(raw["time"])
        event, part = raw["event"], raw["part"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if at is None or not isinstance(event, str) or not isinstance(part, str):
        return None
    get = raw.get
    attempt, seconds, data = get("attempt"), get("seconds"), get("data")
    return Entry(
        at, part, event, _text(get("server")), _text(get("volume")), _text(get("host")), _text(get("extend_id")),
        _text(get("message_id")), _text(get("request_id")), _text(get("global_request_id")),
        attempt if isinstance(attempt, int) else None, _text(get("outcome")), _text(get("reason")),
        seconds if isinstance(seconds, int | float) else None, data if isinstance(data, dict) else {},
        _text(get("trace_id")),
    )  # fmt: skip


def stamp(text: object) -> float | None:
    """Return the epoch seconds of an ISO 8601 or Cinder time stamp; None when the text is not a time stamp.

    A stamp without a zone is read as UTC, because Cinder writes UTC without a zone.
    """
    if not isinstance(text, str):
        return None
    try:
        if text[-1:] == "Z":
            return datetime.fromisoformat(text).timestamp()
        read = datetime.fromisoformat(text)
        return (read if read.tzinfo is not None else datetime.fromisoformat(f"{text}+00:00")).timestamp()
    except (ValueError, OverflowError):
        return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
