# SPDX-License-Identifier: Apache-2.0
"""The request body: a cheap check accepts it, JSON Schema only words a refusal as Nova does.

Source: nova/api/openstack/compute/schemas/server_external_events.py (2.1 and 2.51), whose order decides which of
several errors is named, and nova/api/validation/validators.py, whose sentence a caller's scripts may look for.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

import jsonschema
from oslo_utils import uuidutils

from bridge.api import versions
from bridge.api.versions import Version
from bridge.core.extend import is_uuid

VOLUME_EXTENDED: Final = "volume-extended"
_BASE_NAMES: Final = ("network-changed", "network-vif-plugged", "network-vif-unplugged", "network-vif-deleted")
_STATUSES: Final = ("failed", "completed", "in-progress")
_KEYS: Final = frozenset({"server_uuid", "name", "status", "tag"})
_TAG_MAX: Final = 255

_FORMATS: Final = jsonschema.FormatChecker(formats=())
_FORMATS.checks("uuid")(uuidutils.is_uuid_like)


def names(version: Version) -> Sequence[str]:
    """The event names a microversion knows, in Nova's order."""
    if version >= versions.VOLUME_EXTENDED:
        return (*_BASE_NAMES, VOLUME_EXTENDED)
    return _BASE_NAMES


def refusal(body: object, version: Version) -> str | None:
    """Why Nova's schema refuses the body, in Nova's words; None where it accepts it."""
    if accepts(body, version):
        return None
    return _words(body, version)


def accepts(body: object, version: Version) -> bool:
    """The same decision as the schema's, without its cost."""
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
    try:
        error = next(_validator(version).iter_errors(body), None)
        if error is None:
            return "Malformed request body"
        if error.path:
            return f"Invalid input for field/attribute {error.path[-1]}. Value: {error.instance}. {error.message}"
        return str(error.message)
    except RecursionError:
        return "Malformed request body"


def without_extras(body: object) -> object:
    """A body sent to the legacy /v2, where Nova takes away unknown keys instead of refusing them.

    An object that has unknown keys only keeps them, and is refused for what it lacks.
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
    """The JSON Schema of the request body, in Nova's order."""
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
