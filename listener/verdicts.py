# SPDX-License-Identifier: Apache-2.0
"""Verdicts: the meaning of an endpoint's answer for the events of a request. One pure function.

The endpoint is a Nova of any release with microversion 2.51, or the bridge's own API. The meaning is that of Nova's
os-server-external-events. 200 and 207 carry a code per event. Before 21.0.0 a request of unknown servers only was
an HTTP 404 `itemNotFound`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from bridge.core.extend import ExtendKey
from bridge.core.reasons import Reason
from bridge.runtime.rest import EVENT_CODES, Answer, NoAnswer, event_codes


class Kind(Enum):
    """The fate of one event."""

    DELIVERED = "delivered"  # the endpoint has the event
    SLOW = "slow"  # sent again later, because the cause may end by itself
    PARK = "park"  # kept for a person


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of one event's delivery by this answer."""

    kind: Kind
    reason: Reason


@dataclass(frozen=True, slots=True)
class Settle:
    """The judgement that gives each event its verdict."""

    verdicts: Mapping[ExtendKey, Verdict]


@dataclass(frozen=True, slots=True)
class Split:
    """The judgement that one event spoils the request, or that the request is too large: send it in halves."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Hold:
    """The judgement that the events are fine, but the endpoint is unreachable or needs an operator.

    `after`: seconds to wait, where the endpoint told them.
    """

    reason: Reason
    after: float | None = None


Judgement = Settle | Split | Hold

MANY: Final = 10
"""Number of distinct servers from which a 404 for each of them concerns the endpoint, not the servers."""

_KINDS: Final[Mapping[int, Kind]] = {200: Kind.DELIVERED, 400: Kind.PARK, 404: Kind.SLOW, 422: Kind.SLOW}
_BY_CODE: Final = {code: Verdict(_KINDS[code], reason) for code, reason in EVENT_CODES.items()}
_MISSING: Final = Verdict(Kind.SLOW, Reason.EVENT_NO_CODE)
_OTHER: Final = Verdict(Kind.SLOW, Reason.EVENT_OTHER_CODE)

_ALONE: Final[Mapping[int, Verdict]] = {
    400: Verdict(Kind.PARK, Reason.REQUEST_BAD),
    404: Verdict(Kind.SLOW, Reason.EVENT_UNKNOWN_SERVER),
    413: Verdict(Kind.PARK, Reason.REQUEST_TOO_LARGE),
    500: Verdict(Kind.SLOW, Reason.REQUEST_FAILED),
}
"""Verdicts of a refused request with one event; a request with more events is split."""

_HOLD: Final[Mapping[int, Reason]] = {
    401: Reason.UNAUTHORIZED,  # keystoneauth has tried a new token before we see this
    403: Reason.FORBIDDEN,
    404: Reason.WRONG_URL,
    405: Reason.WRONG_URL,
    406: Reason.WRONG_VERSION,
    429: Reason.TOLD_TO_WAIT,
    502: Reason.UNAVAILABLE,
    503: Reason.UNAVAILABLE,
    504: Reason.UNAVAILABLE,
}
_TOLD: Final = frozenset({429, 503})
_ANSWERED: Final = frozenset({200, 202, 207})
_NOT_FOUND: Final = 404


def judge(sent: Sequence[ExtendKey], answer: Answer | NoAnswer, *, sees_servers: bool = False) -> Judgement:
    """Judge the answer to a request with these events (distinct, at least one).

    `sees_servers`: the endpoint is known not to hide servers from us. Then a 404 for each of many servers means
    that they are gone, as after the end of a project.
    """
    if isinstance(answer, NoAnswer):
        return Hold(answer.reason)
    if answer.status in _ANSWERED:
        return _per_event(sent, answer.body, sees_servers)
    if answer.status in _TOLD and answer.retry_after is not None:
        return Hold(Reason.TOLD_TO_WAIT, answer.retry_after)
    if _about_events(answer):
        return Settle({sent[0]: _ALONE[answer.status]}) if len(sent) == 1 else Split(Reason.BATCH_REFUSED)
    return Hold(_HOLD.get(answer.status, Reason.UNEXPECTED_STATUS))


def _about_events(answer: Answer) -> bool:
    """Return True where one event may have caused the refusal.

    A 404 counts only in the words of Nova < 21; any other 404 concerns the URL.
    """
    if answer.status == _NOT_FOUND:
        return isinstance(answer.body, Mapping) and "itemNotFound" in answer.body
    return answer.status in _ALONE


def _per_event(sent: Sequence[ExtendKey], body: object, sees_servers: bool) -> Judgement:
    codes = event_codes(body)
    if codes is None:
        return Hold(Reason.BAD_ANSWER)
    if not sees_servers and len({key.server_id for key in sent}) >= MANY and _all_hidden(sent, codes):
        return Hold(Reason.ALL_HIDDEN)
    return Settle({key: _verdict(codes.get(key)) for key in sent})


def _all_hidden(sent: Sequence[ExtendKey], codes: Mapping[ExtendKey, object]) -> bool:
    return all(codes.get(key) == _NOT_FOUND for key in sent)


def _verdict(code: object) -> Verdict:
    if not isinstance(code, int) or isinstance(code, bool):
        return _MISSING
    return _BY_CODE.get(code, _OTHER)
