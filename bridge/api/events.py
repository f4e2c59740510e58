# SPDX-License-Identifier: Apache-2.0
"""POST os-server-external-events: check, commit, answer. Calls no other service.

The order of the checks is Nova's. Size and authentication come before routing, in app.py. Then follow microversion,
content type, JSON, project of the URL, schema and policy, then each event. The decision on an event is a pure
function of the event and of the inventory.

Source: nova/api/openstack/compute/server_external_events.py. Nova's order is: the server is unknown (404), the tag
is missing (400), the server is on no host (422). differences.yaml lists our different decisions.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from http import HTTPStatus
from typing import Any, Final, Protocol

import falcon

from bridge.api import request, schema
from bridge.api.faults import fault, not_found
from bridge.api.identity import Policy
from bridge.api.schema import VOLUME_EXTENDED
from bridge.core.audit import AuditEvent, AuditRecord
from bridge.core.extend import Arrival, ExtendKey, ServerState, is_uuid, made_by, read_headers
from bridge.core.reasons import Reason
from bridge.runtime.audit import AuditLog
from bridge.runtime.metrics import ApiMetrics


class Code(IntEnum):
    """The code of one event in the answer."""

    ACCEPTED = 200  # the event is in the journal
    BAD = 400  # the event names no volume, or is not handled here
    UNKNOWN_SERVER = 404  # the server was never reported by a host
    NO_HOST = 422  # the server is not on any host now


@dataclass(frozen=True, slots=True)
class EventDecision:
    """The code of one event; `key` of an accepted event, `reason` of a refused event."""

    code: Code
    key: ExtendKey | None = None
    reason: Reason | None = None


_UNKNOWN: Final = EventDecision(Code.UNKNOWN_SERVER, reason=Reason.UNKNOWN_SERVER)
_NOT_OURS: Final = EventDecision(Code.BAD, reason=Reason.NOT_OURS)
_NO_TAG: Final = EventDecision(Code.BAD, reason=Reason.NO_TAG)
_TAG_NO_VOLUME: Final = EventDecision(Code.BAD, reason=Reason.TAG_NO_VOLUME)
_NO_HOST: Final = EventDecision(Code.NO_HOST, reason=Reason.SERVER_NO_HOST)


def servers(events: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the servers to look up in the inventory: canonical ids, in lower case. Other ids cannot be in it."""
    return {event["server_uuid"].lower() for event in events if is_uuid(event["server_uuid"])}


def decide(event: Mapping[str, Any], standing: Mapping[str, ServerState]) -> EventDecision:
    """Decide on one event that the schema accepted."""
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
    if where is ServerState.NO_HOST:
        return _NO_HOST
    return EventDecision(Code.ACCEPTED, ExtendKey(server, tag.lower()))


def answer(
    events: Sequence[Mapping[str, Any]], decisions: Sequence[EventDecision]
) -> tuple[int, list[dict[str, Any]]]:
    """Return the status of the request and its events: the request's own keys in their order, then status and code.

    The status is 207 where at least one event got another code than 200. Where each did, it is still 207 and never
    an HTTP 404 (Nova ≥ 21).
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


def counted(answered: Sequence[Mapping[str, Any]]) -> str:
    """Return the numbers of accepted and refused events for the access log."""
    accepted = sum(event["code"] == Code.ACCEPTED for event in answered)
    return f"{accepted} events accepted, {len(answered) - accepted} refused"


Choice = Callable[[Mapping[str, ServerState]], Sequence[Arrival]]
"""The choice of accepted arrivals, by the state of their servers."""


class ArrivalStore(Protocol):
    """The journal as the API needs it (bridge.journal.accept)."""

    def admit(self, server_ids: Collection[str], choose: Choice) -> Mapping[ExtendKey, str]:
        """Open or renew an extend for each arrival that `choose` returns, and return their ids after the commit.

        `choose` gets the state of each server that the inventory knows, and may be called more than once. Raises
        JournalUnavailableError.
        """


class AnyServer:
    """A journal for clouds where Nova knows the servers: each server counts as existing, and is located later."""

    def __init__(self, journal: ArrivalStore) -> None:
        self._journal = journal

    def admit(self, server_ids: Collection[str], choose: Choice) -> Mapping[ExtendKey, str]:
        """Accept the arrivals that are chosen when each server is known."""
        known = dict.fromkeys(server_ids, ServerState.ON_HOST)
        return self._journal.admit((), lambda _: choose(known))


class EventsResource:
    """The resource of external events. `wake` tells the engine of work after the commit, and never raises.

    With `versioned` false, the resource is Nova's legacy /v2 endpoint: always 2.1, without microversion headers.
    """

    def __init__(
        self,
        journal: ArrivalStore,
        metrics: ApiMetrics,
        audit: AuditLog,
        wake: Callable[[], None],
        policy: Policy,
        *,
        versioned: bool,
    ) -> None:
        self._journal = journal
        self._counter = cache(lambda code: metrics.events.labels(code=str(code.value)))
        self._audit = audit
        self._wake = wake
        self._policy = policy
        self._versioned = versioned

    def on_post(self, req: falcon.Request, resp: falcon.Response, project_id: str | None = None) -> None:
        """Answer 200 or 207 with a code per event, after the commit; FaultError refuses the request as a whole."""
        request.check_path(project_id)
        version = request.negotiate(req, resp) if self._versioned else request.MIN
        body = request.parse(req)
        request.check_project(project_id, req.context.caller)
        if not self._versioned:
            body = schema.without_extras(body)
        refused = schema.refusal(body, version)
        if refused is not None:
            raise fault(HTTPStatus.BAD_REQUEST, refused)
        self._policy.check(req.context.caller)
        events: list[dict[str, Any]] = body["events"]
        traces = read_headers(req.context.traces, len(events))
        resp.status, answered = self._take(events, traces, req.context.request_id, req.context.global_request_id)
        req.context.decided = f": {counted(answered)}"
        resp.content_type = request.answer_type(req)
        resp.data = json.dumps({"events": answered}).encode()

    def on_options(self, _req: falcon.Request, _resp: falcon.Response, project_id: str | None = None) -> None:
        """Answer 404, which app.py makes Nova's answer to a preflight, because falcon's own names the methods."""
        del project_id
        raise not_found()

    def _take(
        self,
        events: Sequence[Mapping[str, Any]],
        traces: Sequence[str | None],
        request_id: str,
        global_request_id: str | None,
    ) -> tuple[int, list[dict[str, Any]]]:
        decisions: list[EventDecision] = []
        traced: dict[ExtendKey, str] = {}
        made = made_by("api", global_request_id or request_id)

        def choose(standing: Mapping[str, ServerState]) -> list[Arrival]:
            decisions[:] = [decide(event, standing) for event in events]
            traced.clear()
            for decision, trace in zip(decisions, traces, strict=True):
                if decision.key is not None:
                    traced.setdefault(decision.key, trace or made)
            return [
                Arrival(
                    key=key, request_id=request_id, global_request_id=global_request_id, traceparent=traceparent
                )
                for key, traceparent in traced.items()
            ]

        ids = self._journal.admit(servers(events), choose)
        if ids:
            self._wake()
        self._record(events, decisions, ids, traced, request_id, global_request_id)
        return answer(events, decisions)

    def _record(
        self,
        events: Sequence[Mapping[str, Any]],
        decisions: Sequence[EventDecision],
        taken_as: Mapping[ExtendKey, str],
        traced: Mapping[ExtendKey, str],
        request_id: str,
        global_request_id: str | None,
    ) -> None:
        now = time.time()
        taken = [
            AuditRecord.of(
                key,
                AuditEvent.ACCEPTED,
                now,
                extend_id=extend_id,
                request_id=request_id,
                global_request_id=global_request_id,
                traceparent=traced.get(key),
            )
            for key, extend_id in taken_as.items()
        ]
        refused = [
            AuditRecord(
                event=AuditEvent.REFUSED,
                at=now,
                server=_id(event["server_uuid"]),
                volume=_id(event.get("tag")),
                request_id=request_id,
                global_request_id=global_request_id,
                reason=decision.reason.value,
                data={"code": decision.code.value},
            )
            for event, decision in zip(events, decisions, strict=True)
            if decision.reason is not None
        ]
        self._audit.write(*taken, *refused)
        if len(decisions) == 1:
            self._counter(decisions[0].code).inc()
            return
        for code, count in Counter(decision.code for decision in decisions).items():
            self._counter(code).inc(count)


def _id(text: object) -> str | None:
    """Return an id for an audit record, None for text that is not a UUID."""
    return text.lower() if isinstance(text, str) and is_uuid(text) else None
