# SPDX-License-Identifier: Apache-2.0
"""Readers of foreign JSON, field by field: each returns one type, or raises an error that names the field.

The value itself is never in the error, because it can be a secret or hold a line break.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bridge.core.clean import clean
from bridge.core.extend import Bytes

_TEXT_MAX: Final = 255
_WHOLE_MAX: Final = 2**63 - 1  # the largest value of a database's BIGINT


class BadMessageError(ValueError):
    """A message that cannot be read; the text names the key and the expected type, never the value."""


def mapping(raw: object, name: str) -> Mapping[str, Any]:
    """Return `raw`, which must be a JSON object."""
    if not isinstance(raw, Mapping):
        raise BadMessageError(f"{name}: expected an object")
    return raw


def text(message: Mapping[str, Any], key: str) -> str:
    """Return a printable text of 1 to 255 characters."""
    value = message.get(key)
    if not isinstance(value, str) or not value or len(value) > _TEXT_MAX or not value.isprintable():
        raise BadMessageError(f"{key}: expected a printable string of 1 to {_TEXT_MAX} characters")
    return value


def word(message: Mapping[str, Any], key: str, most: int) -> str:
    """Return a text that is only shown, cleaned and cut; an empty text is refused."""
    value = message.get(key)
    if not isinstance(value, str) or not value:
        raise BadMessageError(f"{key}: expected a string")
    return clean(value, most)


def words(message: Mapping[str, Any], key: str, most: int) -> str:
    """Return a text that is only shown, cleaned and cut; "" where the key is absent or not a text."""
    value = message.get(key)
    return clean(value, most) if isinstance(value, str) else ""


def whole(message: Mapping[str, Any], key: str) -> int:
    """Return a whole number from 0 that fits 63 bits."""
    value = message.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _WHOLE_MAX:
        raise BadMessageError(f"{key}: expected a whole number from 0 to {_WHOLE_MAX}")
    return value


def size(message: Mapping[str, Any], key: str) -> Bytes | None:
    """Return a number of bytes; None where the key is absent or null."""
    return None if message.get(key) is None else Bytes(whole(message, key))


def seconds(message: Mapping[str, Any], key: str) -> float:
    """Return a time or a duration for the record; 0 for anything but a finite number."""
    value = message.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_WHOLE_MAX <= value <= _WHOLE_MAX:
        return 0.0
    return float(value)


def items(message: Mapping[str, Any], key: str) -> Sequence[Any]:
    """Return a list, empty where the key is absent or null."""
    value = message.get(key)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise BadMessageError(f"{key}: expected a list")
    return value
