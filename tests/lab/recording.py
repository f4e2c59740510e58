# SPDX-License-Identifier: Apache-2.0
"""Recorded AMQP messages, one JSON object a line: exchange, routing_key, headers, properties, body."""

import base64
import binascii
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_HINTS: Final = frozenset({"base64", "b64"})


class BadRecordingError(Exception):
    """The file cannot be used; the text names file and line and says what is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One message as it was on the wire; `body` is never decoded here."""

    routing_key: str
    body: bytes
    content_type: str | None
    content_encoding: str | None
    headers: dict[str, Any]


def read_recording(path: Path) -> list[Recorded]:
    """Every message of a file, in order; empty lines are left out. Raises BadRecordingError."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as ex:
        raise BadRecordingError(f"{path}: {ex.strerror}") from ex
    return list(_messages(path, lines))


def _messages(path: Path, lines: list[bytes]) -> Iterator[Recorded]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as ex:
            raise BadRecordingError(f"{path}, line {number}: not JSON ({ex})") from ex
        if not isinstance(row, dict):
            raise BadRecordingError(f"{path}, line {number}: expected an object with a body")
        try:
            yield _message(row)
        except (ValueError, binascii.Error) as ex:
            raise BadRecordingError(f"{path}, line {number}: {ex}") from ex


def _message(row: dict[str, Any]) -> Recorded:
    properties, headers = _object(row, "properties"), _object(row, "headers")
    return Recorded(
        routing_key=str(row.get("routing_key") or "notifications.info"),
        body=_body(row),
        content_type=_text(properties.get("content_type")),
        content_encoding=_text(properties.get("content_encoding")),
        headers=dict(headers),
    )


def _object(row: dict[str, Any], name: str) -> dict[str, Any]:
    value = row.get(name)
    return value if isinstance(value, dict) else {}


def _body(row: dict[str, Any]) -> bytes:
    """A text as it is; base64 where a key or a hint says so; an object as the JSON it stands for."""
    for key in ("body_b64", "body_base64"):
        if key in row:
            return base64.b64decode(str(row[key]), validate=True)
    if "body" not in row:
        raise ValueError("the object has no body")
    body = row["body"]
    if not isinstance(body, str):
        return json.dumps(body).encode()
    if row.get("body_encoding") in _HINTS or row.get("encoding") in _HINTS:
        return base64.b64decode(body, validate=True)
    return body.encode("utf-8", "surrogatepass")


def _text(value: object) -> str | None:
    return (
        value if isinstance(value, str) and value.isascii() and value.isprintable() and len(value) < 128 else None
    )
