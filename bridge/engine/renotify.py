# SPDX-License-Identifier: Apache-2.0
"""Repeated notification of Nova, if Nova's computes extend: only the size the guest sees ends an extend.

Nova's 200 ends nothing. Nova casts to a compute that may be down or restarting, acknowledges before the work, and
tries once. So the same event is posted again until the host's agent has read the size back. The delays are the
extend's own back-off.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Final

from bridge.core.audit import AuditEvent
from bridge.core.extend import ExtendKey, new_id
from bridge.core.reasons import Reason
from bridge.engine.upstream import Trouble
from bridge.journal.states import Extend
from bridge.runtime.audit import AuditLog
from bridge.runtime.health import LIMIT, Health
from bridge.runtime.rest import Answer, NoAnswer, NovaEventsClient, event_codes, event_reason

NOVA_EVENTS: Final = "engine.nova_events"
_ANSWERED: Final = frozenset({HTTPStatus.OK, HTTPStatus.ACCEPTED, HTTPStatus.MULTI_STATUS})
_REQUEST_REFUSED: Final[Mapping[int, Reason]] = {
    HTTPStatus.UNAUTHORIZED: Reason.FORBIDDEN,
    HTTPStatus.FORBIDDEN: Reason.FORBIDDEN,
    HTTPStatus.BAD_REQUEST: Reason.REQUEST_BAD,
    HTTPStatus.NOT_FOUND: Reason.WRONG_URL,
    HTTPStatus.METHOD_NOT_ALLOWED: Reason.WRONG_URL,
    HTTPStatus.NOT_ACCEPTABLE: Reason.WRONG_VERSION,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: Reason.REQUEST_TOO_LARGE,
}
_NO_ANSWER: Final[Mapping[Reason, Reason]] = {
    Reason.TIMED_OUT: Reason.NOVA_TIMED_OUT,
    Reason.UNAUTHORIZED: Reason.NOVA_UNAUTHORIZED,
    Reason.NO_ENDPOINT: Reason.NOVA_NO_ENDPOINT,
}
_LOOKS_FIRST: Final = 1  # attempts without a post, because Nova may have acted on the listener's


class Renotifier:
    """The second and later posts of an event, for one thread."""

    def __init__(
        self, events: NovaEventsClient, *, audit: AuditLog, health: Health, clock: Callable[[], float] = time.time
    ) -> None:
        self._events = events
        self._audit = audit
        self._health = health
        self._clock = clock
        health.ok(NOVA_EVENTS, "not needed yet", good_for=LIMIT)

    def __call__(self, extends: Sequence[Extend]) -> Reason | None:
        """Post the events of the guests that were seen behind; return the reason if Nova took none of them."""
        late = [extend for extend in extends if extend.attempt > _LOOKS_FIRST]
        if not late:
            return None
        posted_as = request_id_of(late)
        answer = read_answer(
            self._events.post(
                list(dict.fromkeys(x.key for x in late)),
                posted_as,
                {x.key: x.traceparent for x in late if x.traceparent is not None},
            )
        )
        if isinstance(answer, Trouble):
            self._health.bad(NOVA_EVENTS, str(answer))
            return answer.reason
        self._health.ok(NOVA_EVENTS, good_for=LIMIT)
        reasons = [event_reason(answer.get(extend.key)) for extend in late]
        self._write_audit(late, reasons, posted_as)
        refused = Counter(reason for reason in reasons if reason is not Reason.DELIVERED)
        return refused.most_common(1)[0][0] if refused.total() == len(extends) else None

    def _write_audit(self, late: Sequence[Extend], reasons: Sequence[Reason], posted_as: str) -> None:
        now = self._clock()
        self._audit.write(
            *(
                x.record(
                    AuditEvent.POSTED, now, reason=reason.value,
                    data={} if posted_as == x.global_request_id else {"posted_as": posted_as},
                )
                for x, reason in zip(late, reasons, strict=True)
            )
        )  # fmt: skip


def request_id_of(extends: Sequence[Extend]) -> str:
    """Return the user's own request id if all extends share one, else a new one that the audit log maps."""
    ids = {extend.global_request_id for extend in extends}
    only = ids.pop() if len(ids) == 1 else None
    return only or f"req-{new_id()}"


def read_answer(answer: Answer | NoAnswer) -> Mapping[ExtendKey, object] | Trouble:
    """Return the code of each event, or the reason why Nova refused the whole request."""
    if isinstance(answer, NoAnswer):
        return Trouble(_NO_ANSWER.get(answer.reason, Reason.NOVA_UNREACHABLE), answer.detail)
    if answer.status not in _ANSWERED:
        return Trouble(_REQUEST_REFUSED.get(answer.status, Reason.NOVA_UNREACHABLE))
    codes = event_codes(answer.body)
    return Trouble(Reason.BAD_ANSWER) if codes is None else codes
