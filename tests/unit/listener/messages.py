# SPDX-License-Identifier: Apache-2.0
"""Notifications for tests: recorded ones, and the same with something about them changed."""

import json
from functools import cache
from typing import Any, Final

from tests.lab.paths import ROOT

FIXTURES: Final = ROOT / "tests" / "fixtures" / "cinder29"
VOLUME: Final = "b953ff75-3e6a-47b0-a57e-fa3e1ca311ad"
SERVER: Final = "20541b6d-ff31-4182-829b-c940f4ff55b4"
REQUEST: Final = "req-d98c7de4-5ebc-4c0e-ade3-522577449fa1"
"""Of one_server.json."""

_SECRET_NAMES: Final = frozenset({"auth_password", "auth_username", "provider_auth"})


@cache
def recorded(name: str) -> bytes:
    """The body of a recorded message, by the name of its file."""
    body: str = json.loads((FIXTURES / f"{name}.json").read_text())["body"]
    return body.encode()


def opened(body: bytes) -> dict[str, Any]:
    """The message in an envelope."""
    message: dict[str, Any] = json.loads(json.loads(body)["oslo.message"])
    return message


def enveloped(message: object) -> bytes:
    """A message as oslo.messaging sends it."""
    return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(message)}).encode()


def one_server(**payload: Any) -> bytes:
    """The recorded message of one attached server, members of its payload replaced."""
    message = opened(recorded("one_server"))
    message["payload"] |= payload
    return enveloped(message)


def secrets(value: Any, name: str = "") -> set[str]:
    """Every CHAP user, CHAP password and provider_auth in a message, also inside JSON kept as text."""
    if isinstance(value, dict):
        return set().union(*(secrets(inner, key) for key, inner in value.items()))
    if isinstance(value, list):
        return set().union(*(secrets(inner, name) for inner in value))
    if not isinstance(value, str) or not value:
        return set()
    if name in _SECRET_NAMES:
        return {value, *value.split()[1:]}
    try:
        inner = json.loads(value)
    except ValueError:
        return set()
    return secrets(inner) if isinstance(inner, dict | list) else set()
