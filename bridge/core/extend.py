# SPDX-License-Identifier: Apache-2.0
"""The nouns of an extend: the disk of a guest, the source and the ids of the request, and its trace.

An extend names a (server, volume) and never a size. The size is read from Cinder when the work is done. So a
replayed, late or reordered event cannot carry an old size to a disk.

The trace is one W3C traceparent, from the caller's resize to the last report. A traceparent that came in is handed
on unchanged, so that the spans of each part are children of the caller's span. Where none came, the first part
makes one. Its trace id is the UUID of the user's request id, so that an operator finds the trace by the request id.
Its span id shows which part made it; that part sends the root span.
"""

import hashlib
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NewType, TypeVar

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


_TRACEPARENT: Final = re.compile(
    r"\A(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z"
)
_TEXT_MAX: Final = 256
_UUID_REQUEST: Final = re.compile(r"\Areq-([0-9a-f]{8})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{12})\Z")
_NO_TRACE: Final = "0" * 32
HEADER: Final = "traceparent"
EACH_HEADER: Final = "X-Extend-Bridge-Traceparents"
"""A header of our own: the traceparents of a request's events, in their order, for events of several traces."""
_EACH_MOST: Final = 30  # a longer header would not fit into uWSGI's default buffer beside a token
K = TypeVar("K")


def clean_traceparent(text: object) -> str | None:
    """Return a traceparent in the form of version 00, else None. Members of later versions are left out."""
    if not isinstance(text, str) or len(text) > _TEXT_MAX or (match := _TRACEPARENT.match(text)) is None:
        return None
    version, trace, span, flags, more = match.groups()
    return f"00-{trace}-{span}-{flags}" if version != "00" or more is None else None


def made_by(part: str, request_id: str | None) -> str:
    """Return a new traceparent of this part: sampled, and found by the request id where there is one."""
    match = _UUID_REQUEST.match(request_id) if request_id is not None else None
    if match is not None and (trace := "".join(match.groups())) != _NO_TRACE:
        return f"00-{trace}-{root_span(part, trace)}-01"
    seed = request_id.encode() if request_id is not None else os.urandom(16)
    trace = hashlib.sha256(seed).hexdigest()[:32]
    return f"00-{trace}-{root_span(part, trace)}-01"


def root_span(part: str, trace: str) -> str:
    """Return the id of the root span that this part sends, if it made the trace."""
    return hashlib.sha256(f"{part} {trace}".encode()).hexdigest()[:16]


def trace_id(traceparent: str) -> str:
    """Return the trace id of a clean traceparent."""
    return traceparent[3:35]


def span_id(traceparent: str) -> str:
    """Return the span id of a clean traceparent."""
    return traceparent[36:52]


def headers_of(events: Sequence[K], traces: Mapping[K, str], *, each: bool) -> dict[str, str]:
    """Return the headers of a request with these events.

    Events of one trace share the standard header. `each`: events of several traces are named one by one, as far as
    the header takes them.
    """
    different = {traces.get(event) for event in events}
    if len(different) == 1:
        only = different.pop()
        return {HEADER: only} if only is not None else {}
    if not each:
        return {}
    return {EACH_HEADER: ",".join(traces.get(event) or "" for event in events[:_EACH_MOST])}


def read_headers(headers: tuple[str | None, str | None], number: int) -> list[str | None]:
    """Return the traceparent of each of `number` events. `headers`: the standard one of their request, and ours."""
    shared, each = headers
    if each is not None:
        listed = [clean_traceparent(text) for text in each.split(",", _EACH_MOST)[:_EACH_MOST]]
        return (listed + [None] * number)[:number]
    return [clean_traceparent(shared)] * number
