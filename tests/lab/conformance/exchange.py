# SPDX-License-Identifier: Apache-2.0
"""Recorded requests with their answers, one JSON object a line: case, request, response.

A body above 4,000 bytes may stand cut, as its beginning and ` ... (N bytes)`; a request's is rebuilt to N bytes by
going on as it began. A byte that was no UTF-8 stands as U+FFFD and is sent as the byte ff. Standard library only.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

Headers = tuple[tuple[str, str], ...]

_CUT: Final = re.compile(r" \.\.\. \((\d+) bytes\)\Z")
_NUMBERED: Final = re.compile(r"([0-9a-f-]+-)([0-9a-f]{12})\Z")
_UNDECODABLE: Final = "\N{REPLACEMENT CHARACTER}"
_BODY_MAX: Final = 64 * 1024 * 1024


class BadInputError(Exception):
    """A file cannot be used; the text names it, and the line, and says what is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was sent. `body` in full; None where none was sent."""

    method: str
    path: str
    headers: Headers
    body: bytes | None

    def header(self, name: str) -> str | None:
        """A header's values joined as servers join them, None where it was not sent."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return ",".join(values) if values else None

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of the body, [] where it has none."""
        try:
            body = json.loads(self.body or b"")
        except ValueError:
            return []
        events = body.get("events") if isinstance(body, dict) else None
        return events if isinstance(events, list) and all(isinstance(event, dict) for event in events) else []


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back. `length` and `codes` (events by code) stand for the rest of a body that was recorded cut."""

    status: int
    headers: Headers
    body: str
    length: int | None = None
    codes: Mapping[str, int] | None = None

    def header(self, name: str) -> str | None:
        """The first header of that name."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One line of a recording."""

    case: str
    request: Request
    response: Answer


def read_exchanges(path: Path) -> list[Exchange]:
    """Every exchange of a file, in order; raises BadInputError. Empty lines are left out."""
    found = []
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            found.append(_exchange(json.loads(line), number))
        except (ValueError, RecursionError) as ex:
            raise BadInputError(f"{path}, line {number}: {ex}") from ex
    if not found:
        raise BadInputError(f"{path}: no exchange in it")
    return found


def read_rows(path: Path) -> dict[str, dict[str, Any]]:
    """The servers behind a recording by their id: objects with uuid, host (null: on none) and key."""
    try:
        rows = json.loads("".join(_lines(path)))
    except (ValueError, RecursionError) as ex:
        raise BadInputError(f"{path}: not JSON ({ex})") from ex
    if not isinstance(rows, list):
        raise BadInputError(f"{path}: expected a list of servers")
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or not isinstance(row.get("uuid"), str) or "host" not in row:
            raise BadInputError(f"{path}, server {number}: expected an object with uuid and host")
    return {row["uuid"]: row for row in rows}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as ex:
        raise BadInputError(f"{path}: {getattr(ex, 'strerror', None) or ex}") from ex


def _exchange(row: Any, number: int) -> Exchange:
    request, response = _object(row, "request"), _object(row, "response")
    body = request.get("body")
    if body is not None and not isinstance(body, str):
        raise ValueError("request.body: expected a text or null")
    method, path, status = request.get("method"), request.get("path"), response.get("status")
    if not isinstance(method, str) or not isinstance(path, str) or not isinstance(status, int):
        raise ValueError("expected request.method, request.path and response.status")  # noqa: TRY004 - of a file
    cut, length = _cut(str(response.get("body") or ""))
    return Exchange(
        case=str(row.get("case") or f"line {number}"),
        request=Request(
            method=method,
            path=path,
            headers=_headers(request),
            body=None if body is None else _whole(body),
        ),
        response=Answer(
            status=status,
            headers=_headers(response),
            body=cut,
            length=length,
            codes=_codes(response) if length is not None else None,
        ),
    )


def _object(row: Any, key: str) -> dict[str, Any]:
    value = row.get(key) if isinstance(row, dict) else None
    if not isinstance(value, dict):
        raise ValueError(f"expected an object with an object {key}")  # noqa: TRY004 - of a file
    return value


def _headers(row: Mapping[str, Any]) -> Headers:
    pairs = row.get("headers", [])
    if isinstance(pairs, dict):
        pairs = list(pairs.items())
    if not isinstance(pairs, list) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise ValueError("headers: expected pairs of name and value")
    return tuple((str(name), str(value)) for name, value in pairs)


def _codes(response: Mapping[str, Any]) -> Mapping[str, int] | None:
    codes = response.get("codes")
    if isinstance(codes, dict):
        return {str(code): int(count) for code, count in codes.items()}
    return Counter(map(str, codes)) if isinstance(codes, list) else None


def _cut(text: str) -> tuple[str, int | None]:
    match = _CUT.search(text)
    return (text[: match.start()], int(match[1])) if match else (text, None)


def _whole(text: str) -> bytes:
    beginning, length = _cut(text)
    if length is None:
        return b"\xff".join(part.encode("utf-8", "surrogatepass") for part in text.split(_UNDECODABLE))
    if length > _BODY_MAX:
        raise ValueError(f"request.body: {length} bytes are more than a request may have")
    return _grown(beginning, length)


def _grown(beginning: str, length: int) -> bytes:
    """The body of `length` bytes that begins so: its events go on as they began, or its last character does."""
    events = _whole_events(beginning)
    if len(events) > 1:
        size = len(json.dumps(events[0])) + 2
        count = (length - len('{"events": []}') + 2) // size
        body = json.dumps({"events": [_numbered(events, n) for n in range(count)]})
        if len(body) <= length and body.startswith(beginning):
            return body.encode().ljust(length)
    body = beginning + beginning[-1:] * (length - len(beginning.encode()))
    return body.encode()[:length]


def _whole_events(beginning: str) -> list[dict[str, Any]]:
    head = beginning[: beginning.rfind("},") + 1]
    try:
        found = json.loads(f"{head}]}}")
    except ValueError:
        return []
    events = found.get("events") if isinstance(found, dict) else None
    return [event for event in events if isinstance(event, dict)] if isinstance(events, list) else []


def _numbered(events: list[dict[str, Any]], n: int) -> dict[str, Any]:
    """The n-th event: as recorded, else the first with each id that counted counting on."""
    if n < len(events):
        return events[n]
    return {
        key: _count_on(value, events[1].get(key), n) if isinstance(value, str) else value
        for key, value in events[0].items()
    }


def _count_on(first: str, second: object, n: int) -> str:
    match = _NUMBERED.match(first)
    if match is None or second == first:
        return first
    return f"{match[1]}{int(match[2]) + n:012d}" if match[2].isdecimal() else first
