# SPDX-License-Identifier: Apache-2.0
"""The nouns of an extend: which disk of which guest, and who asked.

An extend names a (server, volume) and never a size: the size is read from Cinder when the work is done, so that
a replayed, late or reordered event cannot carry an old size to a disk.
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
    """Cinder's unit (whole GiB) in bytes."""
    return Bytes(size * GIB)


def is_fixed_overhead(size: int, wanted: int, before: int | None = None) -> bool:
    """Return whether a device of `size` bytes has all that its volume of `wanted` bytes will ever give it.

    Metadata on the device (storage-side LUKS, md, DRBD) hide the same few bytes before and after an extend.
    Cinder's sizes are whole GiB, so a device that has not followed its volume lacks at least one. Of other sizes
    nothing is known beforehand: the device must have grown since `before`, by more than it lacks.
    """
    short = wanted - size
    if short <= 0 or size <= 0:
        return False
    if wanted % GIB == 0:
        return short < GIB
    return before is not None and short < size - before


def is_uuid(text: object) -> bool:
    """Whether `text` is a UUID in its canonical form, dashes included, in either case."""
    return isinstance(text, str) and _UUID.match(text) is not None


def new_id() -> str:
    """An id that cannot collide, for attempts and for rows that several writers make: a UUID of version 7.

    What is made together lies together in an index: with random ids each row of a batch dirties a page of its own.
    """
    ms, ns = divmod(time.time_ns(), 1_000_000)
    within = ns * 4096 // 1_000_000
    random = int.from_bytes(os.urandom(8)) >> 2
    text = f"{ms & 0xFFFF_FFFF_FFFF:012x}7{within:03x}{1 << 63 | random:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


REPLAY_MARK: Final = "req-0e91a400-"
"""What the request ids of replayed events begin with, from the POST's header to the last audit line. In the form
Nova takes (req-UUID), since it drops any other."""


def replay_id() -> str:
    """A request id that carries the mark of `extend-bridge replay`."""
    return f"{REPLAY_MARK}{new_id().partition('-')[2]}"


def clean_request_id(text: object) -> str | None:
    """A request id that is safe in a header and in a log line, or None where it is not one."""
    return text if isinstance(text, str) and _REQUEST_ID.match(text) else None


class ArrivalSource(StrEnum):
    """Who opened an extend."""

    API = "api"  # an event by HTTP: the listener's, Cinder's own, an operator's curl
    RECONCILE = "reconcile"  # the engine saw that a guest is behind
    OPERATOR = "operator"  # `event retry`


class ServerState(StrEnum):
    """What the inventory knows of a server. A server nobody ever reported has no standing: it is unknown."""

    ON_HOST = "on_host"  # an agent reports it on a host
    NO_HOST = "no_host"  # known, but on no host now


@dataclass(frozen=True, slots=True, order=True)
class ExtendKey:
    """One disk of one guest: the unit of work everywhere."""

    server_id: str
    volume_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One accepted event.

    `request_id` is the bridge's own id of the HTTP request that brought it; `global_request_id` is the caller's
    (X-OpenStack-Request-ID), which for the listener is the id of the user's own resize.
    """

    key: ExtendKey
    request_id: str | None = None
    global_request_id: str | None = None
    source: ArrivalSource = ArrivalSource.API
