# SPDX-License-Identifier: Apache-2.0
"""The POST, exactly as Cinder's own Nova client makes it, and what came back as a value."""

import email.utils
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Protocol

import requests
import urllib3
from keystoneauth1 import exceptions as ks
from keystoneauth1.adapter import Adapter

from bridge.core.extend import ExtendKey
from bridge.core.reasons import Reason
from listener.verdicts import Answer, Hold, Judgement, Kind, NoAnswer, Settle, Split, judge

LOG = logging.getLogger(__name__)

_PATH: Final = "/os-server-external-events"
_HEADERS: Final = {
    "Accept": "application/json",
    "OpenStack-API-Version": "compute 2.51",
    "X-OpenStack-Nova-API-Version": "2.51",
}
_ANSWER_MAX: Final = 4 * 1024 * 1024
_CHUNK: Final = 64 * 1024
_WAIT_MAX: Final = 600.0  # seconds; whatever the endpoint asks for
_DIGITS_MAX: Final = 9
_SEEN_LATELY: Final = 1800.0  # seconds; less than an event's patience, so that a lost role parks none

_NO_ANSWER: Final[tuple[tuple[type[Exception], Reason], ...]] = (
    (ks.ConnectTimeout, Reason.TIMED_OUT),  # also what keystoneauth makes of a read timeout
    (ks.Unauthorized, Reason.UNAUTHORIZED),  # Keystone's own word on our user
    (ks.Forbidden, Reason.UNAUTHORIZED),
    (ks.CatalogException, Reason.NO_ENDPOINT),
)


class Endpoint(Protocol):
    """What takes events."""

    def post(self, events: Sequence[ExtendKey], request_id: str) -> Answer | NoAnswer:
        """Send one request; never raises for what the endpoint or the network does."""


class NovaEndpoint:
    """A Nova, or the bridge's API. One request per call; keystoneauth tries a 401 once more with a new token.

    `timeout` in seconds: how long the whole body of an answer may take to read, once its headers are there.
    """

    def __init__(self, adapter: Adapter, *, timeout: float, clock: Callable[[], float] = time.time) -> None:
        self._adapter = adapter
        self._timeout = timeout
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
                stream=True,
            )
            with response:
                return Answer(
                    status=response.status_code,
                    body=self._read(response),
                    retry_after=retry_after(response.headers.get("Retry-After"), self._clock()),
                )
        except ks.ClientException as ex:
            reason = next((why for kind, why in _NO_ANSWER if isinstance(ex, kind)), Reason.UNREACHABLE)
        except (TimeoutError, urllib3.exceptions.ReadTimeoutError):
            reason = Reason.TIMED_OUT
        except urllib3.exceptions.HTTPError:  # while the body is read
            reason = Reason.UNREACHABLE
        LOG.warning("no answer from the endpoint (%s); the events are sent again", reason.value)
        return NoAnswer(reason)

    def _read(self, response: requests.Response) -> Any:
        """The JSON of an answer of bearable size, else None."""
        deadline = time.monotonic() + self._timeout
        text = bytearray()
        while chunk := response.raw.read1(_CHUNK, decode_content=True):  # what has come; `read` would wait for more
            text += chunk
            if len(text) > _ANSWER_MAX:
                return None
            if time.monotonic() > deadline:
                raise TimeoutError
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return None


def retry_after(header: str | None, now: float) -> float | None:
    """Seconds of a Retry-After header, which is a number or an HTTP date; None where it is neither."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX:
        return min(float(text), _WAIT_MAX)
    try:
        at = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(0.0, at - now), _WAIT_MAX)


class EndpointClient:
    """Carries requests to one endpoint, and remembers whether it ever showed us a server.

    `clock` in seconds, monotonic.
    """

    def __init__(self, endpoint: Endpoint, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._seen: float | None = None

    def deliver(self, events: Sequence[ExtendKey], request_id: str) -> Iterator[Judgement]:
        """Send events, splitting a refused request until the one that spoils it stands alone.

        One value per request; ends at the first Hold: what has no verdict by then is sent again later, which is
        harmless. Between two requests the caller looks after whatever else is waiting.
        """
        waiting: list[Sequence[ExtendKey]] = [events] if events else []
        while waiting:
            part = waiting.pop()
            judgement = judge(part, self._endpoint.post(part, request_id), sees_servers=self._sees_servers())
            if isinstance(judgement, Settle) and any(v.kind is Kind.DELIVERED for v in judgement.verdicts.values()):
                self._seen = self._clock()
            yield judgement
            if isinstance(judgement, Hold):
                return
            if isinstance(judgement, Split):
                middle = len(part) // 2
                waiting += [part[middle:], part[:middle]]

    def _sees_servers(self) -> bool:
        """Whether the endpoint knew a server lately: then a 404 is about the servers, however many there are."""
        return self._seen is not None and self._clock() - self._seen < _SEEN_LATELY
