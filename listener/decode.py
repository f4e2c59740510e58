# SPDX-License-Identifier: Apache-2.0
"""Decoder of message bodies, for every queue of the listener. The results are one closed set."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from bridge.core.extend import ExtendKey
from bridge.core.reasons import Reason
from listener.lanes import Parked, read_deferred
from listener.notification import Bad, Origin, Other, ResizeEnd, inflated, is_other_event, parse, translate
from listener.telemetry import Telemetry


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """Events to be sent. `attempts`: earlier ones; `first_seen`: epoch seconds."""

    keys: tuple[ExtendKey, ...]
    origin: Origin
    first_seen: float
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Nothing:
    """A message that needs no action."""


@dataclass(frozen=True, slots=True)
class Raw:
    """A message that cannot be read, to be kept as received."""

    reason: Reason


Found = Events | Nothing | Raw | Parked
_NOTHING = Nothing()


class Reader(Protocol):
    """A reader of the messages of one queue."""

    def read(self, body: bytes, compression: object = None) -> Found:
        """Read one message; never raises. `compression`: the value of its compression header."""


class NotificationReader:
    """A reader of Cinder's notifications. `max_bytes` and `max_rows` are arguments of `parse`."""

    def __init__(
        self, telemetry: Telemetry, *, max_bytes: int, max_rows: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._telemetry = telemetry
        self._max_bytes = max_bytes
        self._max_rows = max_rows
        self._clock = clock

    def read(self, body: bytes, compression: object = None) -> Found:
        """Read a notification; extends are recorded, other notifications are counted."""
        opened = body if compression is None else inflated(body, compression, self._max_bytes)
        return Raw(Reason.NOT_JSON) if opened is None else self._read(opened)

    def _read(self, body: bytes) -> Found:
        if is_other_event(body):
            self._telemetry.other(Reason.OTHER_EVENT)
            return _NOTHING
        read = parse(body, max_bytes=self._max_bytes, max_rows=self._max_rows)
        match read:
            case ResizeEnd():
                translation = translate(read)
                self._telemetry.received(read, translation)
                if not translation.events:
                    return _NOTHING
                return Events(keys=translation.events, origin=read.origin, first_seen=self._clock())
            case Other():
                self._telemetry.other(read.reason)
                return _NOTHING
            case Bad():
                return Parked(
                    reason=read.reason,
                    volume_id=read.volume_id,
                    server_id=None,
                    origin=read.origin,
                    first_seen=self._clock(),
                )
        return Raw(read.reason)


class DueReader:
    """A reader of the due queue: messages of the slow lane, one event each."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock

    def read(self, body: bytes, compression: object = None) -> Found:
        """Read a message of the slow lane, which is never compressed."""
        del compression
        deferred = read_deferred(body, self._clock())
        if deferred is None:
            return Raw(Reason.NOT_OUR_FORM)
        return Events(
            keys=(deferred.key,),
            origin=deferred.origin,
            first_seen=deferred.first_seen,
            attempts=deferred.attempts,
        )
