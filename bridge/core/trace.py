# SPDX-License-Identifier: Apache-2.0
"""The W3C trace context of an extend: one traceparent, from the caller's resize to the last report.

A traceparent that came in is handed on unchanged, so that the spans of each part are children of the caller's span.
Where none came, the first part makes one. Its trace id is the UUID of the user's request id, so that an operator
finds the trace by the request id. Its span id shows which part made it; that part sends the root span.
"""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

_FORM: Final = re.compile(
    r"\A(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z"
)
_TEXT_MAX: Final = 256
_REQUEST: Final = re.compile(r"\Areq-([0-9a-f]{8})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{12})\Z")
_NONE: Final = "0" * 32
HEADER: Final = "traceparent"
EACH_HEADER: Final = "X-Extend-Bridge-Traceparents"
"""A header of our own: the traceparents of a request's events, in their order, for events of several traces."""
_EACH_MOST: Final = 30  # a longer header would not fit into uWSGI's default buffer beside a token
K = TypeVar("K")


def clean_traceparent(text: object) -> str | None:
    """Return a traceparent in the form of version 00, else None. Members of later versions are left out."""
    if not isinstance(text, str) or len(text) > _TEXT_MAX or (match := _FORM.match(text)) is None:
        return None
    version, trace, span, flags, more = match.groups()
    return f"00-{trace}-{span}-{flags}" if version != "00" or more is None else None


def made_by(part: str, request_id: str | None) -> str:
    """Return a new traceparent of this part: sampled, and found by the request id where there is one."""
    match = _REQUEST.match(request_id) if request_id is not None else None
    if match is not None and (trace := "".join(match.groups())) != _NONE:
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
