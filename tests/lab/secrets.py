# SPDX-License-Identifier: Apache-2.0
"""The secrets in a recording of Cinder's notifications, so that a test can look for them everywhere else."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.lab.recording import read_recording

_NAMES: Final = frozenset({"auth_password", "auth_username", "keyring", "provider_auth"})


def secrets_of(path: Path) -> set[str]:
    """Every CHAP user, CHAP password and provider_auth (whole, and its parts) of a recording."""
    found: set[str] = set()
    for message in read_recording(path):
        for name, value in _walk(json.loads(message.body)):
            if name in _NAMES and isinstance(value, str) and value:
                found.add(value)
                found.update(value.split()[1:])  # "CHAP user password"
    return found


def _walk(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every value with the key it stands under, also inside JSON that is kept as text."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _walk(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner, name)
    else:
        yield name, value
        if isinstance(value, str) and value[:1] in "{[" and len(value) > 1:
            try:
                inner = json.loads(value)
            except ValueError:
                return
            yield from _walk(inner, name)
