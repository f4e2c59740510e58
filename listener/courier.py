# SPDX-License-Identifier: Apache-2.0
"""The POST, exactly as Cinder's own Nova client makes it, and what came back as a value."""

import email.utils
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from keystoneauth1.adapter import Adapter
from keystoneauth1.exceptions import ClientException, ConnectTimeout

from bridge.core.extend import ExtendKey
from bridge.core.reasons import Reason
from listener.verdicts import Answer, Hold, NoAnswer, Settle, Split, Verdict, judge

LOG = logging.getLogger(__name__)

_PATH: Final = "/os-server-external-events"
_HEADERS: Final = {
    "Accept": "application/json",
    "OpenStack-API-Version": "compute 2.51",
    "X-OpenStack-Nova-API-Version": "2.51",
}
_ANSWER_MAX: Final = 4 * 1024 * 1024
_WAIT_MAX: Final = 600.0  # seconds; whatever the endpoint asks for


class Endpoint(Protocol):
    """What takes events."""

    def post(self, events: Sequence[ExtendKey], request_id: str) -> Answer | NoAnswer:
        """Send one request; never raises for what the endpoint or the network does."""


class NovaEndpoint:
    """A Nova, or the bridge's API. One request per call; keystoneauth tries a 401 once more with a new token."""

    def __init__(self, adapter: Adapter, *, clock: Callable[[], float] = time.time) -> None:
        self._adapter = adapter
        self._clock = clock

    def post(self, events: Sequence[ExtendKey], request_id: str) -> Answer | NoAnswer:
        """See Endpoint."""
        body = {
            "events": [
                {"name": "volume-extended", "server_uuid": key.server_id, "tag": key.volume_id} for key in events
            ]
        }
        try:
            response = self._adapter.post(
                _PATH,
                json=body,
                headers={**_HEADERS, "X-OpenStack-Request-ID": request_id},
                raise_exc=False,
                redirect=False,
                log=False,  # keystoneauth would log headers and body at debug
            )
        except ConnectTimeout:  # also what it makes of a read timeout
            return NoAnswer(Reason.TIMED_OUT)
        except ClientException as ex:
            LOG.warning("the endpoint was not reached: %s", type(ex).__name__)
            return NoAnswer(Reason.UNREACHABLE)
        return Answer(
            status=response.status_code,
            body=_json(response),
            retry_after=retry_after(response.headers.get("Retry-After"), self._clock()),
        )


def _json(response: Any) -> Any:
    if len(response.content) > _ANSWER_MAX:
        return None
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None


def retry_after(header: str | None, now: float) -> float | None:
    """Seconds of a Retry-After header, which is a number or an HTTP date; None where it is neither."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:  # noqa: PLR2004 - longer than any time worth waiting
        return min(float(text), _WAIT_MAX)
    try:
        at = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(0.0, at - now), _WAIT_MAX)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What came of some events: a verdict each, or for the rest the reason they are held."""

    verdicts: Mapping[ExtendKey, Verdict] = field(default_factory=dict)
    hold: Hold | None = None


def deliver(endpoint: Endpoint, events: Sequence[ExtendKey], request_id: str) -> Delivery:
    """Send events, splitting a refused request until the one that spoils it stands alone.

    Ends at the first hold: what has no verdict by then is sent again later, which is harmless.
    """
    verdicts: dict[ExtendKey, Verdict] = {}
    waiting: list[Sequence[ExtendKey]] = [events] if events else []
    while waiting:
        part = waiting.pop()
        judgement = judge(part, endpoint.post(part, request_id))
        match judgement:
            case Settle():
                verdicts.update(judgement.verdicts)
            case Split():
                middle = len(part) // 2
                waiting += [part[middle:], part[:middle]]
            case Hold():
                return Delivery(verdicts, judgement)
    return Delivery(verdicts)
