# SPDX-License-Identifier: Apache-2.0
"""What in an answer is not as recorded, in words. Headers that vary by nature are compared by their form."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from tests.lab.conformance.exchange import Answer

_SERVERS_OWN: Final = frozenset({"connection", "date", "keep-alive", "server", "transfer-encoding"})
_BY_FORM: Final = {
    "x-openstack-request-id": re.compile(r"req-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    "x-compute-request-id": re.compile(r"req-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    "content-length": re.compile(r"\d+"),
}
_SHOWN: Final = 160  # characters of a value


def differences(ours: Answer, recorded: Answer) -> list[str]:
    """One sentence for each difference; [] where the answers are the same."""
    found = [] if ours.status == recorded.status else [f"status: {ours.status}, recorded {recorded.status}"]
    return [*found, *_headers(ours, recorded), *_body(ours, recorded)]


def _headers(ours: Answer, recorded: Answer) -> Iterator[str]:
    mine, theirs = _shape(ours), _shape(recorded)
    for name in sorted(mine.keys() | theirs.keys()):
        if mine.get(name) != theirs.get(name):
            yield f"header {name}: {_said(mine.get(name))}, recorded {_said(theirs.get(name))}"


def _shape(answer: Answer) -> dict[str, list[str]]:
    """Values by name in lower case, in any order; a value of a known form is replaced by the form."""
    shape: dict[str, list[str]] = {}
    for name, value in answer.headers:
        low = name.lower()
        if low in _SERVERS_OWN:
            continue
        form = _BY_FORM.get(low)
        shape.setdefault(low, []).append(f"<{low}>" if form is not None and form.fullmatch(value) else value)
    # a server that sends an empty body need not say its length
    if not answer.body and shape.get("content-length"):
        del shape["content-length"]
    return {name: sorted(values) for name, values in shape.items()}


def _said(values: list[str] | None) -> str:
    return "absent" if values is None else " and ".join(map(_short, values))


def _body(ours: Answer, recorded: Answer) -> Iterator[str]:
    if recorded.length is not None:
        yield from _cut_body(ours, recorded)
    elif ours.body != recorded.body:
        mine, theirs = _json(ours.body), _json(recorded.body)
        found = list(_values(mine, theirs, "")) if mine is not None and theirs is not None else []
        yield from found or [f"body: {_short(ours.body)}, recorded {_short(recorded.body)}"]


def _cut_body(ours: Answer, recorded: Answer) -> Iterator[str]:
    if not ours.body.startswith(recorded.body):
        yield f"body: begins {_short(ours.body)}, recorded {_short(recorded.body)}"
    length = len(ours.body.encode())
    if length != recorded.length:
        yield f"body: {length} bytes, recorded {recorded.length}"
    if recorded.codes is not None and (codes := event_codes(ours.body)) != dict(recorded.codes):
        yield f"body: events by code {codes}, recorded {dict(recorded.codes)}"


def event_codes(body: str) -> dict[str, int]:
    """How many events of an answer have each code."""
    parsed = _json(body)
    events = parsed.get("events") if isinstance(parsed, dict) else None
    return dict(Counter(str(event.get("code")) for event in events)) if isinstance(events, list) else {}


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _values(ours: Any, recorded: Any, at: str) -> Iterator[str]:
    """The keys of two JSON bodies that differ; their order counts."""
    if isinstance(ours, dict) and isinstance(recorded, dict):
        for key in [*recorded, *(key for key in ours if key not in recorded)]:
            inner = f"{at}.{key}" if at else key
            if key not in ours or key not in recorded:
                yield f"key {inner}: {'absent' if key not in ours else 'present'}, recorded otherwise"
            else:
                yield from _values(ours[key], recorded[key], inner)
        if ours.keys() == recorded.keys() and list(ours) != list(recorded):
            yield f"order of keys in {at or 'the body'}: {', '.join(ours)}, recorded {', '.join(recorded)}"
    elif isinstance(ours, list) and isinstance(recorded, list) and len(ours) == len(recorded):
        for n, (mine, theirs) in enumerate(zip(ours, recorded, strict=True)):
            yield from _values(mine, theirs, f"{at}.{n}")
    elif ours != recorded:
        yield f"key {at or 'of the body'}: {_short(ours)}, recorded {_short(recorded)}"


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
