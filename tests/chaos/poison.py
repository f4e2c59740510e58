# SPDX-License-Identifier: Apache-2.0
"""Messages nobody should send to a notification queue, and somebody does: (body, content type, encoding)."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

Poison = tuple[bytes, str | None, str | None]

_JSON: Final = "application/json"


def poison(good: bytes) -> Iterator[Poison]:
    """One of each kind, made from a good volume.resize.end."""
    envelope: dict[str, Any] = json.loads(good)
    message: dict[str, Any] = json.loads(envelope["oslo.message"])
    payload: Mapping[str, Any] = message["payload"]

    def enveloped(inner: object, version: str = "2.0") -> Poison:
        return json.dumps({"oslo.version": version, "oslo.message": json.dumps(inner)}).encode(), _JSON, "utf-8"

    def with_payload(changed: object) -> Poison:
        return enveloped({**message, "payload": changed})

    yield b"not json volume.resize.end", _JSON, "utf-8"
    yield b"\x80\x04volume.resize.end\xff\x00", "application/octet-stream", "binary"
    yield b"\xc3\x28 volume.resize.end", _JSON, "utf-8"
    yield b'["volume.resize.end"]', _JSON, "utf-8"
    yield b'"volume.resize.end"', _JSON, "utf-8"
    yield b"(dp0\nS'volume.resize.end'\np1\n.", "application/x-python-serialize", "binary"
    yield good[: len(good) // 2], _JSON, "utf-8"
    yield enveloped(message, version="9.0")
    yield json.dumps({"oslo.version": "2.0", "oslo.message": "volume.resize.end {"}).encode(), _JSON, "utf-8"
    yield enveloped([message])
    yield enveloped({**message, "event_type": None})
    yield with_payload("a string")
    yield enveloped({key: value for key, value in message.items() if key != "payload"})
    yield with_payload({**payload, "volume_id": "no uuid"})
    yield with_payload({key: value for key, value in payload.items() if key != "volume_id"})
    yield with_payload({**payload, "volume_attachment": "no list"})
    yield with_payload({**payload, "volume_attachment": [None, 7, "row"]})
    yield with_payload({**payload, "volume_attachment": [{"instance_uuid": "x\r\nInjected: 1"}]})
    yield b"[" * 20_000 + b"volume.resize.end", _JSON, "utf-8"
