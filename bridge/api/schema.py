# SPDX-License-Identifier: Apache-2.0
"""The check of the request body: a cheap check accepts it, JSON Schema only words a refusal as Nova does.

Source: nova/api/openstack/compute/schemas/server_external_events.py (2.1 and 2.51), whose order decides which of
several errors is named. The sentences are those of nova/api/validation/validators.py, because callers' scripts may
search for them.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

import jsonschema
from oslo_utils import uuidutils

from bridge.api import request
from bridge.api.request import Version
from bridge.core.extend import is_uuid

VOLUME_EXTENDED: Final = "volume-extended"
_BASE_NAMES: Final = ("network-changed", "network-vif-plugged", "network-vif-unplugged", "network-vif-deleted")
_STATUSES: Final = ("failed", "completed", "in-progress")
_KEYS: Final = frozenset({"server_uuid", "name", "status", "tag"})
_TAG_MAX: Final = 255
_MAX_DEPTH: Final = 200
_MAX_SHOWN: Final = 1000

_FORMATS: Final = jsonschema.FormatChecker(formats=())
_FORMATS.checks("uuid")(uuidutils.is_uuid_like)


def names(version: Version) -> Sequence[str]:
    """Return the event names of a microversion, in Nova's order."""
    if version >= request.VOLUME_EXTENDED:
        return (*_BASE_NAMES, VOLUME_EXTENDED)
    return _BASE_NAMES


def refusal(body: object, version: Version) -> str | None:
    """Return the refusal of the body by Nova's schema, in Nova's words; None where the schema accepts the body."""
    if accepts(body, version):
        return None
    return _words(body, version)


def accepts(body: object, version: Version) -> bool:
    """Return the decision of the schema, without its cost."""
    if not isinstance(body, dict) or body.keys() != {"events"}:
        return False
    events = body["events"]
    if not isinstance(events, list) or not events:
        return False
    known = names(version)
    return all(_accepts_event(event, known) for event in events)


def _accepts_event(event: object, known: Sequence[str]) -> bool:
    if not isinstance(event, dict) or not event.keys() <= _KEYS:
        return False
    server, name = event.get("server_uuid"), event.get("name")
    if not isinstance(name, str) or name not in known:
        return False
    if not is_uuid(server) and not (isinstance(server, str) and uuidutils.is_uuid_like(server)):
        return False
    if "tag" in event:
        tag = event["tag"]
        if not isinstance(tag, str) or len(tag) > _TAG_MAX:
            return False
    return "status" not in event or (isinstance(event["status"], str) and event["status"] in _STATUSES)


def _words(body: object, version: Version) -> str:
    if _deeper(body, _MAX_DEPTH):
        return "Malformed request body"
    error = next(_validator(version).iter_errors(body), None)
    if error is None:
        return "Malformed request body"
    if not error.path:
        return clipped(error.message)
    value, message = clipped(str(error.instance)), clipped(error.message)
    return f"Invalid input for field/attribute {clipped(str(error.path[-1]))}. Value: {value}. {message}"


def clipped(text: str) -> str:
    """Return at most a thousand characters of a caller's text, for an answer."""
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _deeper(body: object, depth: int) -> bool:
    """Return True for a body whose objects and lists are nested deeper than `depth`.

    The function does not recurse, because Python's depth limit and the error beyond it differ between versions.
    """
    level = [body]
    for _ in range(depth):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def without_extras(body: object) -> object:
    """Return a body for the legacy /v2, where Nova removes unknown keys instead of refusing them.

    An object with only unknown keys keeps them, and is refused for its missing keys.
    """
    if not isinstance(body, dict):
        return body
    known = _known(body, frozenset({"events"}))
    events = known.get("events")
    if not isinstance(events, list):
        return known
    return {**known, "events": [_known(event, _KEYS) if isinstance(event, dict) else event for event in events]}


def _known(given: dict[str, Any], keys: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key in keys} or given


@cache
def _validator(version: Version) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema(version), format_checker=_FORMATS)


def schema(version: Version) -> Mapping[str, Any]:
    """Return the JSON Schema of the request body, in Nova's order."""
    return {
        "type": "object",
        "properties": {
            "events": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "properties": {
                        "name": {"type": "string", "enum": list(names(version))},
                        "server_uuid": {"type": "string", "format": "uuid"},
                        "status": {"type": "string", "enum": list(_STATUSES)},
                        "tag": {"type": "string", "maxLength": _TAG_MAX},
                    },
                    "required": ["name", "server_uuid"],
                    "additionalProperties": False,
                },
            },
        },
        "required": ["events"],
        "additionalProperties": False,
    }
