# SPDX-License-Identifier: Apache-2.0
"""POST os-server-external-events: check, commit, answer. Calls nobody but the journal.

Order of checks as Nova's: size, authentication (both before routing, in app.py), microversion, content type, JSON,
project of the URL, schema, policy, then per event.
"""

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Protocol

import falcon

from bridge.api import microversion, request, schema
from bridge.api.decide import Decision, answer, decide, servers
from bridge.api.faults import fault, not_found
from bridge.api.identity import Policy
from bridge.core.extend import Arrival, ExtendKey, Standing, is_uuid
from bridge.core.trail import Event, Record
from bridge.runtime.audit_log import AuditLog
from bridge.runtime.metrics import ApiMetrics

LOG = logging.getLogger(__name__)


class Journal(Protocol):
    """What the API needs of the journal (bridge.journal.store)."""

    def standing(self, server_ids: Collection[str]) -> Mapping[str, Standing]:
        """What the inventory knows of each server; one that is absent is unknown.

        Raises JournalUnavailableError.
        """

    def accept(self, arrivals: Sequence[Arrival]) -> Mapping[ExtendKey, str]:
        """Open or renew an extend for each arrival, committed on return: ids. Raises JournalUnavailableError."""


class AnyServer:
    """A journal whose servers are Nova's: each is taken for there, and looked for when its extend is worked on."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def standing(self, server_ids: Collection[str]) -> Mapping[str, Standing]:
        """See Journal."""
        return dict.fromkeys(server_ids, Standing.ON_HOST)

    def accept(self, arrivals: Sequence[Arrival]) -> Mapping[ExtendKey, str]:
        """See Journal."""
        return self._journal.accept(arrivals)


class EventsResource:
    """The one resource. `wake` tells the engine that there is work, after the commit; it does not raise.

    With `versioned` false it is Nova's legacy /v2 endpoint: microversion headers are not read, it is always 2.1.
    """

    def __init__(
        self,
        journal: Journal,
        metrics: ApiMetrics,
        audit: AuditLog,
        wake: Callable[[], None],
        policy: Policy,
        *,
        versioned: bool,
    ) -> None:
        self._journal = journal
        self._metrics = metrics
        self._audit = audit
        self._wake = wake
        self._policy = policy
        self._versioned = versioned

    def on_post(self, req: falcon.Request, resp: falcon.Response, project_id: str | None = None) -> None:
        """Answer 200 or 207 with a code per event, after the commit; FaultError refuses the request as a whole."""
        request.check_path(project_id)
        version = request.negotiate(req, resp) if self._versioned else microversion.MIN
        body = request.parse(req)
        request.check_project(project_id, req.context.caller)
        if not self._versioned:
            body = schema.without_extras(body)
        refused = schema.refusal(body, version)
        if refused is not None:
            raise fault(HTTPStatus.BAD_REQUEST, refused)
        self._policy.check(req.context.caller)
        events: list[dict[str, Any]] = body["events"]
        resp.status, answered = self._take(events, req.context.request_id, req.context.global_request_id)
        resp.content_type = request.answer_type(req)
        resp.data = json.dumps({"events": answered}).encode()

    def on_options(self, _req: falcon.Request, _resp: falcon.Response, project_id: str | None = None) -> None:
        """As any path (app.py): falcon's own answer would name the methods."""
        del project_id
        raise not_found()

    def _take(
        self, events: Sequence[Mapping[str, Any]], request_id: str, global_request_id: str | None
    ) -> tuple[int, list[dict[str, Any]]]:
        standing = self._journal.standing(servers(events))
        decisions = [decide(event, standing) for event in events]
        keys = dict.fromkeys(decision.key for decision in decisions if decision.key is not None)
        arrivals = [Arrival(key=key, request_id=request_id, global_request_id=global_request_id) for key in keys]
        ids: Mapping[ExtendKey, str] = {}
        if arrivals:
            ids = self._journal.accept(arrivals)
            self._wake()
        self._record(events, decisions, ids, request_id, global_request_id)
        return answer(events, decisions)

    def _record(
        self,
        events: Sequence[Mapping[str, Any]],
        decisions: Sequence[Decision],
        taken_as: Mapping[ExtendKey, str],
        request_id: str,
        global_request_id: str | None,
    ) -> None:
        now = time.time()
        taken = [
            Record(
                event=Event.ACCEPTED,
                at=now,
                server=key.server_id,
                volume=key.volume_id,
                extend_id=extend_id,
                request_id=request_id,
                global_request_id=global_request_id,
            )
            for key, extend_id in taken_as.items()
        ]
        refused = [
            Record(
                event=Event.REFUSED,
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
        for code, count in Counter(decision.code for decision in decisions).items():
            self._metrics.events.labels(code=str(code.value)).inc(count)
        LOG.info(
            "request %s (%s): %d events, %d extends accepted, %d events refused",
            request_id, global_request_id or "-", len(events), len(taken), len(refused),
        )  # fmt: skip


def _id(text: object) -> str | None:
    """An id as it may stand in an audit record: nothing a caller made up."""
    return text.lower() if isinstance(text, str) and is_uuid(text) else None
