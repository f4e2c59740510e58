# SPDX-License-Identifier: Apache-2.0
"""Rules of newer brokers, played before an older one by a proxy that reads AMQP frames.

RabbitMQ 4.3 refuses queues that are neither durable nor exclusive, unless told otherwise. Debian's build is told
otherwise, so only this shows what happens with upstream's.
"""

import struct
from dataclasses import dataclass, field
from typing import Final

from tests.lab.proxy import Link, Look, Way

_GREETING: Final = 8  # bytes: "AMQP" and the version
_METHOD: Final = 1
_QUEUE_DECLARE: Final = (50, 10)
_CONNECTION_CLOSE: Final = (10, 50)
_FRAME_END: Final = b"\xce"
_PASSIVE, _DURABLE, _EXCLUSIVE = 1, 2, 4
_INTERNAL_ERROR: Final = 541
_TEXT: Final = (
    b"INTERNAL_ERROR - Feature `transient_nonexcl_queues` is deprecated. By default, this feature is not permitted "
    b"anymore."
)


@dataclass
class NoTransientQueues:
    """The rule of RabbitMQ 4.3; `refused` has the names of the queues it was broken with."""

    refused: list[str] = field(default_factory=list)
    _read: dict[int, bytearray] = field(default_factory=dict)
    _greeted: set[int] = field(default_factory=set)

    @property
    def look(self) -> Look:
        """The rule as a proxy takes it."""
        return self._look

    def _look(self, link: Link, way: Way, piece: bytes) -> bytes:
        if way is not Way.UP:
            return piece
        read = self._read.setdefault(link.number, bytearray())
        read += piece
        passed = bytearray()
        if link.number not in self._greeted:
            if len(read) < _GREETING:
                return b""
            passed += read[:_GREETING]
            del read[:_GREETING]
            self._greeted.add(link.number)
        while (frame := _frame(read)) is not None:
            del read[: len(frame)]
            name = _transient(frame)
            if name is None:
                passed += frame
                continue
            self.refused.append(name)
            link.answer(_close())
            link.lose(Way.UP)
            return bytes(passed)
        return bytes(passed)


def _frame(read: bytearray) -> bytes | None:
    """Return the first whole frame, end octet included."""
    if len(read) < 7:
        return None
    size = struct.unpack(">I", read[3:7])[0] + 8
    return bytes(read[:size]) if len(read) >= size else None


def _transient(frame: bytes) -> str | None:
    """Return the name of the queue that a frame declares against the rule."""
    if frame[0] != _METHOD or struct.unpack(">HH", frame[7:11]) != _QUEUE_DECLARE:
        return None
    name = frame[14 : 14 + frame[13]].decode()
    bits = frame[14 + frame[13]]
    return None if bits & (_PASSIVE | _DURABLE | _EXCLUSIVE) else name


def _close() -> bytes:
    payload = (
        struct.pack(">HH", *_CONNECTION_CLOSE)
        + struct.pack(">HB", _INTERNAL_ERROR, len(_TEXT))
        + _TEXT
        + struct.pack(">HH", *_QUEUE_DECLARE)
    )
    return struct.pack(">BHI", _METHOD, 0, len(payload)) + payload + _FRAME_END
