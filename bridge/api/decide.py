# SPDX-License-Identifier: Apache-2.0
"""What becomes of each event of a request: a pure function of the event and of what the inventory knows.

Source: nova/api/openstack/compute/server_external_events.py. Nova looks in this order: the server is unknown (404),
the tag is missing (400), the server is on no host (422). Where we decide otherwise stands in differences.yaml.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from http import HTTPStatus
from typing import Any, Final

from bridge.api.schema import VOLUME_EXTENDED
from bridge.core.extend import ExtendKey, Standing, is_uuid
from bridge.core.reasons import Reason


class Code(IntEnum):
    """The code of one event in the answer."""

    ACCEPTED = 200  # it is in the journal
    BAD = 400  # it names no volume, or is no event of ours
    UNKNOWN_SERVER = 404  # nobody ever reported the server
    NO_HOST = 422  # the server is on no host now


@dataclass(frozen=True, slots=True)
class Decision:
    """The code of one event; `key` where it is accepted, `reason` where it is not."""

    code: Code
    key: ExtendKey | None = None
    reason: Reason | None = None


_UNKNOWN: Final = Decision(Code.UNKNOWN_SERVER, reason=Reason.UNKNOWN_SERVER)
_NOT_OURS: Final = Decision(Code.BAD, reason=Reason.NOT_OURS)
_NO_TAG: Final = Decision(Code.BAD, reason=Reason.NO_TAG)
_TAG_NO_VOLUME: Final = Decision(Code.BAD, reason=Reason.TAG_NO_VOLUME)
_NO_HOST: Final = Decision(Code.NO_HOST, reason=Reason.SERVER_NO_HOST)


def servers(events: Sequence[Mapping[str, Any]]) -> set[str]:
    """The servers to ask the inventory for: canonical ids, in lower case. Others cannot be in it."""
    return {event["server_uuid"].lower() for event in events if is_uuid(event["server_uuid"])}


def decide(event: Mapping[str, Any], standing: Mapping[str, Standing]) -> Decision:
    """The decision on one event that the schema accepted."""
    server = event["server_uuid"].lower()
    where = standing.get(server)
    if where is None:
        return _UNKNOWN
    if event["name"] != VOLUME_EXTENDED:
        return _NOT_OURS
    tag = event.get("tag")
    if tag is None:
        return _NO_TAG
    if not is_uuid(tag):
        return _TAG_NO_VOLUME
    if where is Standing.NO_HOST:
        return _NO_HOST
    return Decision(Code.ACCEPTED, ExtendKey(server, tag.lower()))


def answer(events: Sequence[Mapping[str, Any]], decisions: Sequence[Decision]) -> tuple[int, list[dict[str, Any]]]:
    """Status of the request and its events: the request's own keys in their order, then status and code.

    207 as soon as one event got another code than 200, also when all did: never an HTTP 404 (Nova ≥ 21).
    """
    whole = all(decision.code is Code.ACCEPTED for decision in decisions)
    return (HTTPStatus.OK if whole else HTTPStatus.MULTI_STATUS).value, [
        {
            **event,
            "status": "completed" if decision.code is Code.ACCEPTED else "failed",
            "code": decision.code.value,
        }
        for event, decision in zip(events, decisions, strict=True)
    ]
