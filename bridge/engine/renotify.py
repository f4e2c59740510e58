# SPDX-License-Identifier: Apache-2.0
"""Beside Nova: the event once more, for a guest that its agent saw behind. Nova's 200 is no end, the size is.

Nova casts to a compute that may be down or restarting, acknowledges before it works, and tries once; so the same
event is posted again, with the extend's own back-off, until the host's agent has read the size back.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from keystoneauth1.adapter import Adapter
from keystoneauth1.exceptions import ClientException

from bridge.core.audit import AuditEvent, AuditRecord
from bridge.core.extend import ExtendKey
from bridge.core.reasons import Reason
from bridge.engine.nova import ONCE_MORE
from bridge.journal.states import Extend
from bridge.runtime.audit import AuditLog
from bridge.runtime.health import Health

LOG = logging.getLogger(__name__)

NOVA_EVENTS: Final = "engine.nova_events"
_HEADERS: Final = {"OpenStack-API-Version": "compute 2.51", "Accept": "application/json"}
_TAKEN: Final = frozenset({200, 207})
_REFUSED: Final = frozenset({401, 403})
_OK, _BAD, _NOT_FOUND = 200, 400, 404
_CODES: Final = {
    200: Reason.DELIVERED,
    400: Reason.EVENT_BAD,
    404: Reason.EVENT_UNKNOWN_SERVER,
    422: Reason.EVENT_NO_HOST,
}
_LOOKS_FIRST: Final = 1  # attempts that only look: Nova, told by the listener, may have done it already


class Renotifier:
    """Posts; for one thread."""

    def __init__(
        self, adapter: Adapter, *, audit: AuditLog, health: Health, clock: Callable[[], float] = time.time
    ) -> None:
        self._adapter = adapter
        self._audit = audit
        self._health = health
        self._clock = clock
        health.ok(NOVA_EVENTS, "not needed yet")

    def __call__(self, extends: Sequence[Extend]) -> Reason | None:
        """Tell Nova of those that were seen behind; why not, where it took none of them."""
        late = [extend for extend in extends if extend.attempt > _LOOKS_FIRST]
        if not late:
            return None
        told = self._post(late)
        if isinstance(told, Reason):
            self._health.bad(NOVA_EVENTS, told.text)
            return told
        self._health.ok(NOVA_EVENTS)
        reasons = [told.get(extend.key, Reason.EVENT_NO_CODE) for extend in late]
        self._say(late, reasons)
        refused = Counter(reason for reason in reasons if reason is not Reason.DELIVERED)
        return refused.most_common(1)[0][0] if refused.total() == len(extends) else None

    def _post(self, late: Sequence[Extend]) -> Mapping[ExtendKey, Reason] | Reason:
        events = [{"name": "volume-extended", "server_uuid": x.key.server_id, "tag": x.key.volume_id} for x in late]
        headers = dict(_HEADERS)
        if late[0].global_request_id is not None:
            headers["X-OpenStack-Request-ID"] = late[0].global_request_id
        try:
            response = self._adapter.post(
                "/os-server-external-events", json={"events": events}, headers=headers, raise_exc=False, log=False,
                **ONCE_MORE,
            )  # fmt: skip
        except ClientException as ex:
            LOG.warning("Nova cannot be told of %d guests behind: %s", len(late), type(ex).__name__)
            return Reason.NOVA_UNREACHABLE
        try:
            return read_answer(response.status_code, response.json())
        except ValueError:
            return read_answer(response.status_code, None)

    def _say(self, late: Sequence[Extend], reasons: Sequence[Reason]) -> None:
        now = self._clock()
        self._audit.write(
            *(
                AuditRecord(
                    event=AuditEvent.POSTED, at=now, server=x.key.server_id, volume=x.key.volume_id, extend_id=x.id,
                    attempt=x.attempt, request_id=x.request_id, global_request_id=x.global_request_id,
                    reason=reason.value,
                )
                for x, reason in zip(late, reasons, strict=True)
            )
        )  # fmt: skip


def read_answer(status: int, body: object) -> Mapping[ExtendKey, Reason] | Reason:
    """What became of each event; one reason where the request as a whole was not taken."""
    if status in _REFUSED:
        return Reason.FORBIDDEN
    if status == _BAD:
        return Reason.REQUEST_BAD
    if status == _NOT_FOUND:
        return Reason.WRONG_URL
    if status not in _TAKEN:
        return Reason.NOVA_UNREACHABLE
    rows = body.get("events") if isinstance(body, Mapping) else None
    if not isinstance(rows, list):
        return Reason.BAD_ANSWER
    return {key: _reason(row) for row in rows if (key := _key(row)) is not None}


def _key(row: object) -> ExtendKey | None:
    if not isinstance(row, Mapping):
        return None
    server, tag = row.get("server_uuid"), row.get("tag")
    return ExtendKey(server, tag) if isinstance(server, str) and isinstance(tag, str) else None


def _reason(row: Mapping[str, Any]) -> Reason:
    code = row.get("code")
    return _CODES.get(code, Reason.EVENT_OTHER_CODE) if isinstance(code, int) else Reason.EVENT_NO_CODE
