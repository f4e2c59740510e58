# SPDX-License-Identifier: Apache-2.0
"""Real messages with something wrong in them: in their bytes, in their JSON, in their envelope."""

import json
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

_UUID: Final = "20541b6d-ff31-4182-829b-c940f4ff55b4"
_NAMES: Final = (
    "event_type",
    "payload",
    "volume_id",
    "volume_attachment",
    "instance_uuid",
    "attach_status",
    "size",
)
_BIG: Final = 1 << 20


def mutated(bodies: Sequence[bytes], draw: random.Random) -> bytes:
    """One message nobody sent; `bodies` are recorded ones. The same for the same draw."""
    body = draw.choice(bodies)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        body = draw.choice(_MUTATIONS)(body, bodies, draw)
    return body


def _flip(body: bytes, _others: Sequence[bytes], draw: random.Random) -> bytes:
    changed = bytearray(body)
    for _ in range(draw.randrange(1, 6) if changed else 0):
        changed[draw.randrange(len(changed))] = draw.randrange(256)
    return bytes(changed)


def _cut(body: bytes, _others: Sequence[bytes], draw: random.Random) -> bytes:
    start, end = sorted((draw.randrange(len(body) + 1), draw.randrange(len(body) + 1)))
    return draw.choice((body[:start], body[start:], body[:start] + body[end:], body[:end] + body[start:]))


def _splice(body: bytes, others: Sequence[bytes], draw: random.Random) -> bytes:
    other = draw.choice(others)
    return body[: draw.randrange(len(body) + 1)] + other[draw.randrange(len(other)) :]


def _insert(body: bytes, _others: Sequence[bytes], draw: random.Random) -> bytes:
    at = draw.randrange(len(body) + 1)
    new = draw.choice(
        (b"\x00", b"\xff\xfe", b"\\ud800", b"\\\\u0000", b"[" * 2000, b"9" * 5000, b"1e999", b"NaN", b'"', b"\\",
         b"}{",
         draw.randbytes(draw.randrange(1, 40)))
    )  # fmt: skip
    return body[:at] + new + body[at:]


def _encode(body: bytes, _others: Sequence[bytes], draw: random.Random) -> bytes:
    text = body.decode("utf-8", "replace")
    return text.encode(draw.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "utf-7")), "replace")


def _fill(body: bytes, _others: Sequence[bytes], draw: random.Random) -> bytes:
    """Now and then as large as is allowed, or more."""
    return body + b" " * draw.randrange(_BIG + 2000) if draw.random() < 0.01 else body + b"\n" * draw.randrange(9)


def _in_json(body: bytes, _others: Sequence[bytes], draw: random.Random) -> bytes:
    """A place anywhere in the message gets another value, goes, or comes twice."""
    try:
        envelope = json.loads(body)
        message = json.loads(envelope["oslo.message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return body
    for _ in range(draw.randrange(1, 4)):
        message = _changed(message, draw)
    try:
        inner = json.dumps(message, ensure_ascii=draw.random() < 0.8)
        form: Any = draw.choice(_FORMS)(inner, message)
        return (form if isinstance(form, str) else json.dumps(form)).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return body


_FORMS: Final[Sequence[Callable[[str, Any], Any]]] = (
    lambda inner, _message: {"oslo.version": "2.0", "oslo.message": inner},
    lambda inner, _message: {"oslo.version": "2.0", "oslo.message": inner},
    lambda inner, _message: {"oslo.version": "2.0", "oslo.message": inner},
    lambda inner, _message: inner,
    lambda _inner, message: {"oslo.version": "2.9", "oslo.message": message},
    lambda inner, _message: {"oslo.version": "3.0", "oslo.message": inner},
    lambda inner, _message: {"oslo.version": 2, "oslo.message": inner},
    lambda inner, _message: {"oslo.version": "2.0", "oslo.message": json.dumps({"oslo.message": inner})},
    lambda inner, _message: [inner],
)


def _changed(value: Any, draw: random.Random) -> Any:
    places: list[Any] = []
    if isinstance(value, dict):
        places = [name for name in value if name in _NAMES] or list(value)
        if draw.random() < 0.4:
            places = list(value)
    elif isinstance(value, list):
        places = list(range(len(value)))
    if not places or draw.random() < 0.15:
        return _value(draw)
    copy, place = value.copy(), draw.choice(places)
    what = draw.random()
    if what < 0.1:
        copy.pop(place)
    elif what < 0.15 and isinstance(copy, list):
        copy.extend([copy[place]] * draw.choice((1, 3, 60)))
    elif what < 0.2 and isinstance(copy, dict):
        copy[draw.choice((f"{place}\x00", str(place).upper(), "", "oslo.message"))] = copy.pop(place)
    else:
        copy[place] = _changed(value[place], draw)
    return copy


def _value(draw: random.Random) -> Any:
    return draw.choice(_VALUES)(draw)


_VALUES: Final[Sequence[Callable[[random.Random], Any]]] = (
    lambda _draw: None,
    lambda draw: draw.choice((True, False)),
    lambda draw: draw.choice((0, -1, 1, 2**31, 2**63, 2**64, -(2**70), 10**30)),
    lambda draw: draw.choice((0.5, -1.5, 1e300, float("inf"), float("-inf"), float("nan"))),
    lambda draw: draw.choice(("", " ", "2", "attached", "volume.resize.end", "null", "\ud800", "é" * 50, "\u202e")),
    lambda draw: draw.choice((_UUID, _UUID.upper(), _UUID.replace("-", ""), _UUID + "\n", _UUID[:-1], f" {_UUID}")),
    lambda draw: "".join(map(chr, draw.choices(range(0x30), k=draw.randrange(1, 30)))),
    lambda draw: "x" * draw.choice((128, 129, 256, 20_000)),
    lambda _draw: [],
    lambda _draw: {},
    lambda draw: [None] * draw.choice((1, 49, 51, 5000)),
    lambda draw: [{"instance_uuid": _UUID, "attach_status": "attached"}] * draw.choice((1, 2, 51)),
    lambda draw: _nested(draw.choice((3, 50, 900))),
)


def _nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


_MUTATIONS: Final = (_in_json, _in_json, _in_json, _in_json, _flip, _cut, _splice, _insert, _encode, _fill)
