# SPDX-License-Identifier: Apache-2.0
"""The REST client of every part: keystoneauth adapters, one total deadline per request, and the events of Nova.

A deadline covers the whole request. Its parts are the address lookup's result, connecting, TLS, Keystone's token if
needed, the headers and the body. A server that sends one byte a second cannot hold a thread longer than that. The
libraries' own retries are off, because each hop has one retry policy, which is the bridge's.
"""

import email.utils
import http.client
import io
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import requests
import urllib3
from keystoneauth1 import exceptions as ks_errors
from keystoneauth1.adapter import Adapter
from keystoneauth1.session import Session, TCPKeepAliveAdapter

from bridge.core.extend import ExtendKey, headers_of
from bridge.core.reasons import Reason
from bridge.runtime.rest_failures import failure_detail, failure_reason, os_error

LOG = logging.getLogger(__name__)

DEFAULT_TIMEOUT: Final = 10.0  # seconds, if an operator has set [group] timeout to nothing
LARGEST_ANSWER: Final = 4 * 1024 * 1024
_WIRE_MAX: Final = 64 * 1024 * 1024  # bytes of any answer, also of Keystone's, which keystoneauth reads whole
_CHUNK: Final = 64 * 1024
_WAIT_MAX: Final = 600.0  # seconds; a longer wait of an endpoint is cut
_DIGITS_MAX: Final = 9
_ONCE_MORE: Final[Mapping[str, Any]] = {"connect_retries": 1, "connect_retry_delay": 0.05}

EVENTS_PATH: Final = "/os-server-external-events"
_EVENTS_HEADERS: Final = {
    "OpenStack-API-Version": "compute 2.51",
    "X-OpenStack-Nova-API-Version": "2.51",
}
EVENT_CODES: Final[Mapping[int, Reason]] = {
    200: Reason.DELIVERED,
    400: Reason.EVENT_BAD,
    404: Reason.EVENT_UNKNOWN_SERVER,
    422: Reason.EVENT_NO_HOST,
}
"""Codes Nova gives an event, in the body of a 200 or 207."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP answer. `body` is its JSON, None if no JSON can be read; `retry_after` in seconds.

    `too_large`: the body was longer than the client reads, and is left out.
    """

    status: int
    body: Any = None
    retry_after: float | None = None
    too_large: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """A request without an answer. The server may have carried it out, so repeating it must be harmless.

    `detail` names the address that was tried, what happened there, and what to set.
    """

    reason: Reason
    detail: str = field(default="", compare=False)


class _ThreadDeadline(threading.local):
    """The moment at which the request of this thread has to be over; None outside a request."""

    at: float | None = None


_DEADLINE: Final = _ThreadDeadline()


@contextmanager
def total_deadline(seconds: float) -> Iterator[None]:
    """Bound every HTTP request of this thread in the block to `seconds` together. An outer bound stays in force."""
    before = _DEADLINE.at
    at = time.monotonic() + seconds
    _DEADLINE.at = at if before is None else min(at, before)
    try:
        yield
    finally:
        _DEADLINE.at = before


def _left(at: float | None) -> float:
    """Return the seconds until the moment `at`; raises TimeoutError when it has passed."""
    if at is None:
        return DEFAULT_TIMEOUT
    left = at - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


class _BoundedRaw(io.RawIOBase):
    """The bytes of one connection, each read within the deadline of its request."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._file = sock.makefile("rb", buffering=0)
        self._at = _DEADLINE.at
        self._read = 0

    def readable(self) -> bool:
        """Return True, because http.client asks."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Read the bytes that have come, within the rest of the deadline."""
        self._sock.settimeout(_left(self._at))
        count = self._file.readinto(buffer)
        self._read += count or 0
        if self._read > _WIRE_MAX:
            raise OSError(f"the answer is longer than {_WIRE_MAX} bytes")
        return count

    def close(self) -> None:
        """Close this view of the connection."""
        self._file.close()
        super().close()


class _BoundedSocket:
    """A socket for http.client's response, which only makes a file of it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def makefile(self, *_: Any, **__: Any) -> io.BufferedReader:
        """Return a reader that keeps the deadline."""
        return io.BufferedReader(_BoundedRaw(self._sock))


class _BoundedResponse(http.client.HTTPResponse):
    """A response whose status line, headers and body all come within the deadline."""

    def __init__(self, sock: Any, *args: Any, **more: Any) -> None:
        super().__init__(_BoundedSocket(sock), *args, **more)  # type: ignore[arg-type]


class _BoundedConnecting:
    """The connect of a connection: each address of a name gets an equal share of the remaining time."""

    def _new_conn(self: Any) -> socket.socket:
        found = socket.getaddrinfo(self._dns_host, self.port, 0, socket.SOCK_STREAM)
        at, trouble = _DEADLINE.at, OSError("the name has no address")
        for number, (family, kind, protocol, _, address) in enumerate(found):
            sock = socket.socket(family, kind, protocol)
            try:
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                sock.settimeout(_left(at) / (len(found) - number))
                if self.source_address:
                    sock.bind(self.source_address)
                sock.connect(address)
            except OSError as ex:
                sock.close()
                trouble = ex
                continue
            sock.settimeout(_left(at))  # for TLS, whose handshake is bounded as a whole
            return sock
        if isinstance(trouble, TimeoutError):
            raise urllib3.exceptions.ConnectTimeoutError(self, f"no connection to {self.host} in time")
        raise urllib3.exceptions.NewConnectionError(self, os_error(trouble)) from trouble


class _HTTPConnection(_BoundedConnecting, urllib3.connection.HTTPConnection):
    """A plain connection that keeps the deadline."""

    response_class = _BoundedResponse


class _HTTPSConnection(_BoundedConnecting, urllib3.connection.HTTPSConnection):
    """A TLS connection that keeps the deadline."""

    response_class = _BoundedResponse


class _HTTPPool(urllib3.HTTPConnectionPool):
    """Plain connections to one host."""

    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    """TLS connections to one host."""

    ConnectionCls = _HTTPSConnection


class _BoundedAdapter(TCPKeepAliveAdapter):
    """The transport of a session: every request has a deadline, also those of keystoneauth itself."""

    def __init__(self, *, seconds: float, **tls: Any) -> None:
        self._seconds = seconds
        super().__init__(**tls)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools of bounded connections, for requests."""
        super().init_poolmanager(*args, **kwargs)
        self._bound(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """Return bounded pools for a proxy, for requests."""
        manager = super().proxy_manager_for(*args, **kwargs)
        self._bound(manager)
        return manager

    def send(self, request: Any, *args: Any, **kwargs: Any) -> requests.Response:
        """Send one request within the rest of its deadline, for requests."""
        with total_deadline(self._seconds):
            try:
                kwargs["timeout"] = _left(_DEADLINE.at)
            except TimeoutError as ex:
                raise requests.exceptions.ConnectTimeout(str(ex), request=request) from ex
            response: requests.Response = super().send(request, *args, **kwargs)
            return response

    def _bound(self, manager: Any) -> None:
        manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
        options = manager.connection_pool_kw.setdefault("socket_options", [])
        unacknowledged = (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self._seconds * 1000))
        if unacknowledged not in options:
            options.append(unacknowledged)


def bounded(session: Session, seconds: float) -> Session:
    """Give every request of the session a total deadline of `seconds`; return the same session."""
    for scheme in ("http://", "https://"):
        before = session.session.get_adapter(scheme)
        tls = {name: getattr(before, name) for name in ("tls_ciphers", "tls_min_version") if hasattr(before, name)}
        session.session.mount(scheme, _BoundedAdapter(seconds=seconds, **tls))
    session.session.headers["Accept-Encoding"] = "identity"  # a small answer cannot become a large one
    return session


class RestClient:
    """Requests to one endpoint, each with one total deadline. Never raises for an error of endpoint or network.

    `group` is the section of the configuration that describes the endpoint, for error texts. `timeout` in seconds.
    `once_more`: a kept connection that turns out to be dead is made anew, once. uWSGI ends kept connections without
    notice.
    """

    def __init__(
        self,
        adapter: Adapter,
        *,
        timeout: float,
        group: str = "endpoint",
        largest: int = LARGEST_ANSWER,
        once_more: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._adapter = adapter
        self._group = group
        self._timeout = timeout
        self._largest = largest
        self._more = _ONCE_MORE if once_more else {}
        self._clock = clock
        bounded(adapter.session, timeout)

    def get(self, path: str, headers: Mapping[str, str]) -> Answer | NoAnswer:
        """Read one resource of the endpoint."""
        return self._request("GET", path, headers)

    def post(self, path: str, body: object, headers: Mapping[str, str]) -> Answer | NoAnswer:
        """Send one JSON body."""
        return self._request("POST", path, headers, json=body)

    def _request(self, method: str, path: str, headers: Mapping[str, str], **more: Any) -> Answer | NoAnswer:
        try:
            with total_deadline(self._timeout):
                response = self._adapter.request(
                    path,
                    method,
                    headers={"Accept": "application/json", **headers},
                    raise_exc=False,
                    redirect=False,
                    log=False,  # keystoneauth would log headers and body at debug: Cinder's hold CHAP passwords
                    stream=True,
                    **self._more,
                    **more,
                )
                with response:
                    body, too_large = self._read(response)
                    return Answer(
                        status=response.status_code,
                        body=body,
                        retry_after=retry_after(response.headers.get("Retry-After"), self._clock()),
                        too_large=too_large,
                    )
        except (ks_errors.ClientException, urllib3.exceptions.HTTPError, OSError) as ex:
            reason = failure_reason(ex)
            with total_deadline(self._timeout):
                detail = failure_detail(ex, reason, self._adapter, group=self._group, timeout=self._timeout)
        LOG.warning("%s %s of [%s]: no answer (%s): %s", method, path, self._group, reason.value, detail)
        return NoAnswer(reason, detail)

    def _read(self, response: requests.Response) -> tuple[Any, bool]:
        """Return an answer's JSON, unless it is too large, and whether it was too large."""
        text = bytearray()
        while chunk := response.raw.read1(_CHUNK, decode_content=True):  # what has come; `read` would wait for more
            text += chunk
            if len(text) > self._largest:
                return None, True
        try:
            return json.loads(text), False
        except (ValueError, RecursionError):
            return None, False


class NovaEventsClient:
    """The one client of os-server-external-events: a Nova of any release, or the bridge's own API.

    The requests are the same as those of Cinder's own Nova client.
    """

    def __init__(self, rest: RestClient, *, each_trace: bool = False) -> None:
        """Keep the connection. `each_trace`: name the traceparents of events of several traces one by one."""
        self._rest = rest
        self._each_trace = each_trace

    def post(
        self, events: Sequence[ExtendKey], request_id: str, traces: Mapping[ExtendKey, str] | None = None
    ) -> Answer | NoAnswer:
        """Send one request with an event for each of these disks. `traces`: their traceparents."""
        rows = [{"name": "volume-extended", "server_uuid": key.server_id, "tag": key.volume_id} for key in events]
        headers = {**_EVENTS_HEADERS, "X-OpenStack-Request-ID": request_id}
        headers |= headers_of(events, traces or {}, each=self._each_trace)
        return self._rest.post(EVENTS_PATH, {"events": rows}, headers)


def event_codes(body: object) -> Mapping[ExtendKey, object] | None:
    """Read the code of each event of an answer, in lower-case ids; None if the body is not such an answer."""
    rows = body.get("events") if isinstance(body, Mapping) else None
    if not isinstance(rows, list):
        return None
    codes: dict[ExtendKey, object] = {}
    for row in rows:
        if isinstance(row, Mapping):
            server_id, volume_id = row.get("server_uuid"), row.get("tag")
            if isinstance(server_id, str) and isinstance(volume_id, str):
                codes.setdefault(ExtendKey(server_id.lower(), volume_id.lower()), row.get("code"))
    return codes


def event_reason(code: object) -> Reason:
    """Return the meaning of one event's code, or of a missing code."""
    if not isinstance(code, int) or isinstance(code, bool):
        return Reason.EVENT_NO_CODE
    return EVENT_CODES.get(code, Reason.EVENT_OTHER_CODE)


def retry_after(header: str | None, now: float) -> float | None:
    """Return the seconds of a Retry-After header, a number or an HTTP date; None for any other value."""
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
