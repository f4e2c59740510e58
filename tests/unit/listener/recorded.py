# SPDX-License-Identifier: Apache-2.0
"""Recorded messages of a real Cinder 29, opened for a test to change."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.lab.paths import ROOT

FIXTURES: Final = ROOT / "tests" / "fixtures" / "cinder29"


def body_of(path: Path) -> bytes:
    """The body as it was on the wire."""
    body: str = json.loads(path.read_text())["body"]
    return body.encode()


def message_of(path: Path) -> dict[str, Any]:
    """The message inside the envelope."""
    message: dict[str, Any] = json.loads(json.loads(body_of(path))["oslo.message"])
    return message


def enveloped(message: object) -> bytes:
    """In oslo.messaging's envelope, version 2."""
    return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(message)}).encode()


def changed(change: Callable[[dict[str, Any]], None], name: str = "one_server.json") -> bytes:
    """A recorded volume.resize.end with its payload changed."""
    message = message_of(FIXTURES / name)
    change(message["payload"])
    return enveloped(message)
