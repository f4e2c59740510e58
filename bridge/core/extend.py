# SPDX-License-Identifier: Apache-2.0
"""The nouns of an extend: the disk of a guest, and the source of the request.

An extend names a (server, volume) and never a size. The size is read from Cinder when the work is done. So a
replayed, late or reordered event cannot carry an old size to a disk.
"""

import os
import re
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NewType

Bytes = NewType("Bytes", int)
GIB = 1024**3

_UUID = re.compile(r"\A[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z", re.IGNORECASE)
_REQUEST_ID = re.compile(r"\A[A-Za-z0-9._:-]{1,128}\Z")


def gib(size: int) -> Bytes:
    """Convert Cinder's unit, whole GiB, to bytes."""
    return Bytes(size * GIB)


def is_fixed_overhead(size: int, wanted: int, before: int | None = None) -> bool:
    """Return True where a device of `size` bytes will never get more of its volume of `wanted` bytes.

    Metadata on the device (storage-side LUKS, md, DRBD) hide the same few bytes before and after an extend.
    Cinder's sizes are whole GiB, so a device that has not followed its volume lacks at least one GiB. For other
    sizes the overhead is not known beforehand. Then the device must have grown since `before`, by more than it
    lacks.
    """
    short = wanted - size
    if short <= 0 or size <= 0:
        return False
    if wanted % GIB == 0:
        return short < GIB
    return before is not None and short < size - before


def is_uuid(text: object) -> bool:
    """Return True where `text` is a UUID in its canonical form, with dashes, in either case."""
    return isinstance(text, str) and _UUID.match(text) is not None


def new_id() -> str:
    """Return a UUID of version 7 for attempts and for rows of several writers, because it cannot collide.

    Ids made together lie together in an index; with random ids each row of a batch dirties its own page.
    """
    ms, ns = divmod(time.time_ns(), 1_000_000)
    within = ns * 4096 // 1_000_000
    random = int.from_bytes(os.urandom(8)) >> 2
    text = f"{ms & 0xFFFF_FFFF_FFFF:012x}7{within:03x}{1 << 63 | random:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


REPLAY_MARK: Final = "req-0e91a400-"
"""The first characters of the request ids of replayed events, from the POST's header to the last audit line.

The form is Nova's (req-UUID), because Nova drops any other."""


def replay_id() -> str:
    """Return a new request id with the mark of `extend-bridge replay`."""
    return f"{REPLAY_MARK}{new_id().partition('-')[2]}"


def clean_request_id(text: object) -> str | None:
    """Return a request id that is safe in a header and in a log line, else None."""
    return text if isinstance(text, str) and _REQUEST_ID.match(text) else None


class ArrivalSource(StrEnum):
    """The source that opened an extend."""

    API = "api"  # an event by HTTP: the listener's, Cinder's own, an operator's curl
    RECONCILE = "reconcile"  # the engine found a guest behind its volume
    OPERATOR = "operator"  # `event retry`


class ServerState(StrEnum):
    """The inventory's knowledge of a server. A server that was never reported has no state: it is unknown."""

    ON_HOST = "on_host"  # an agent reports the server on a host
    NO_HOST = "no_host"  # known, but not on any host now


@dataclass(frozen=True, slots=True, order=True)
class ExtendKey:
    """One disk of one guest: the unit of work everywhere."""

    server_id: str
    volume_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One event that the API accepted, or an extend opened without an event.

    `request_id` is the bridge's own id of the HTTP request with the event. `global_request_id` is the caller's
    (X-OpenStack-Request-ID); from the listener, it is the id of the user's own resize.
    """

    key: ExtendKey
    request_id: str | None = None
    global_request_id: str | None = None
    traceparent: str | None = None
    source: ArrivalSource = ArrivalSource.API
