# SPDX-License-Identifier: Apache-2.0
"""The WSGI application: paths, and the layers of every request around its resource.

The order of the layers has reasons:
0. forwarding headers: no layer sees the headers of callers that are not trusted proxies;
1. length of the path: a longer path is neither processed nor returned;
2. access log: it has the end of every request;
3. request ids: each answer from here on can be found in the log;
4. size: a body that is too large is refused before it costs a token check or other work;
5. authentication: before routing, because a stranger must not learn which paths exist.
Then comes the path, and in the resource the microversion, which depends on the path (the legacy /v2 has none).

The access log holds one line per request, never a token, a body, a query, or a caller's unescaped text.
"""

import logging
import re
import time
from collections.abc import Callable, Iterable
from functools import cache
from http import HTTPStatus
from typing import Any, Final

import falcon

from bridge.api import request, versions
from bridge.api.events import AnyServer, ArrivalStore, EventsResource
from bridge.api.faults import FaultError, handle, not_found, too_long
from bridge.api.forwarded import behind_proxies
from bridge.api.healthcheck import PATH as HEALTHCHECK
from bridge.api.healthcheck import Healthcheck
from bridge.api.identity import Authenticator, Policy
from bridge.api.request import DOCUMENT_PATH, VERSIONED_PATH
from bridge.api.settings import ApiSettings
from bridge.core.extend import EACH_HEADER, HEADER, clean_request_id, new_id
from bridge.http.server import StartResponse, WsgiApp
from bridge.runtime.audit import AuditLog
from bridge.runtime.config import Driver
from bridge.runtime.metrics import ApiMetrics
from bridge.runtime.wakeup import waker

ACCESS_LOG = logging.getLogger("bridge.api.access")
"""A logger with its own name, by which operators filter the access log or send it elsewhere."""

_ACCESS_LINE: Final = 'request %s (%s) from %s user %s: "%s %s" %s in %.1f ms%s'
_EVENTS: Final = "os-server-external-events"
_PROJECT_DOCUMENT: Final = re.compile(r"/(?P<path>v2|v2\.1)/(?P<project_id>[0-9a-f-]+)/\Z")
_MAX_TARGET: Final = 8192
"""Limit for the characters of a path and its query. An operator may raise the own limits of uWSGI and gunicorn."""
_SLASHES: Final = re.compile(r"//+")
_TRACE, _EACH_TRACE = (f"HTTP_{name.upper().replace('-', '_')}" for name in (HEADER, EACH_HEADER))


class AccessLog:
    """The access log of requests. It is the first middleware, because refusals of the others are logged as well."""

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        """Note the time at which the request began."""
        req.context.started = time.monotonic()

    def process_response(self, req: falcon.Request, resp: falcon.Response, _resource: object, _ok: bool) -> None:
        """Write the request's line of the access log."""
        if not ACCESS_LOG.isEnabledFor(logging.INFO):
            return
        context = req.context
        who = getattr(context, "caller", None)
        values = (
            context.request_id,
            context.global_request_id or "-",
            request.shown(req.remote_addr or "-"),
            request.shown(who.user) if who is not None else "-",
            request.shown(req.method),
            request.shown(req.path),
            resp.status_code,
            (time.monotonic() - context.started) * 1e3,
            getattr(context, "decided", ""),
        )
        # ACCESS_LOG.info would look for the line of code that calls it, in each frame of the stack
        record = ACCESS_LOG.makeRecord(ACCESS_LOG.name, logging.INFO, __file__, 0, _ACCESS_LINE, values, None)
        ACCESS_LOG.handle(record)


class RequestIds:
    """Request ids: our id is sent in both headers, as Nova's; the caller's own becomes the global id."""

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        """Make our request id, and read the caller's."""
        req.context.request_id = f"req-{new_id()}"
        req.context.global_request_id = clean_request_id(req.env.get("HTTP_X_OPENSTACK_REQUEST_ID"))
        req.context.traces = (req.env.get(_TRACE), req.env.get(_EACH_TRACE))

    def process_response(self, req: falcon.Request, resp: falcon.Response, _resource: object, _ok: bool) -> None:
        """Send the id, except with the unversioned documents, because Nova sends none with these."""
        if VERSIONED_PATH.match(req.path):
            resp.set_header("x-openstack-request-id", req.context.request_id)
            resp.set_header("x-compute-request-id", req.context.request_id)


class Doorkeeper:
    """The check of the size, then of the credentials. The version documents are open to all callers."""

    def __init__(self, auth: Authenticator) -> None:
        self._auth = auth

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        """Check a request; raises FaultError 413, or the authenticator's FaultError."""
        request.check_length(req)
        if VERSIONED_PATH.match(req.path) and not DOCUMENT_PATH.match(req.path):
            req.context.caller = self._auth.authenticate(req)
        if req.method not in falcon.COMBINED_METHODS:
            raise not_found()


class _Context:
    """The values of one request: from the middleware to its resource, and `decided` back to the access log."""

    __slots__ = ("caller", "decided", "global_request_id", "request_id", "started", "traces")


class _Request(falcon.Request):
    context_type = _Context


def build(
    settings: ApiSettings,
    journal: ArrivalStore,
    metrics: ApiMetrics,
    audit: AuditLog,
    *,
    auth: Authenticator,
    policy: Policy,
    ping: Callable[[], str | None],
    wake: Callable[[], None] | None = None,
) -> WsgiApp:
    """Return the WSGI application, with all layers.

    `ping` returns the reason why the journal cannot be used, else None. `wake` replaces the datagram to [api]
    wake_host and wake_port.
    """
    log = [AccessLog()] if settings.access_log else []
    app: falcon.App[Any, Any] = falcon.App(request_type=_Request, middleware=[*log, RequestIds(), Doorkeeper(auth)])
    app.add_error_handler(Exception, handle)
    app.add_error_handler(falcon.HTTPError, handle)  # falcon has its own handler for these
    call = waker(settings.wake_host, settings.wake_port) if wake is None else wake
    # falcon tries the sink that was added last first
    app.add_sink(_choices, r"/")
    app.add_sink(_nothing_there, VERSIONED_PATH)
    app.add_sink(_project_document, _PROJECT_DOCUMENT)
    app.add_sink(_version_document, DOCUMENT_PATH)
    app.add_sink(_root_document, r"/\Z")
    app.add_route(HEALTHCHECK, Healthcheck(ping, disable_file=settings.healthcheck_disable_file))
    if settings.known_by is Driver.NOVA:
        journal = AnyServer(journal)
    for path in ("/v2", "/v2.1"):
        events = EventsResource(journal, metrics, audit, call, policy, versioned=path == "/v2.1")
        app.add_route(f"{path}/{_EVENTS}", events)
        app.add_route(f"{path}/{{project_id}}/{_EVENTS}", events)
    return behind_proxies(_finish(app, metrics), settings.proxies)


def _finish(app: WsgiApp, metrics: ApiMetrics) -> WsgiApp:
    """Wrap the application in the steps of every request and answer, refused ones as well."""

    counter = cache(
        lambda status: metrics.requests.labels(status=status)
    )  # the library's look-up is the dearer part

    def finished(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        # An endpoint that was configured with a slash at its end works, as with uWSGI in front of Nova.
        path = environ.get("PATH_INFO") or "/"
        environ["PATH_INFO"] = _SLASHES.sub("/", path) if "//" in path else path
        if len(environ["PATH_INFO"]) + len(environ.get("QUERY_STRING") or "") > _MAX_TARGET:
            return _refuse(too_long(), start_response)
        empty = False

        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            nonlocal empty
            # Nova's CORS middleware does this to every refused preflight, also one that authentication refused.
            if environ["REQUEST_METHOD"] == "OPTIONS" and not status.startswith("2"):
                empty, status, headers = True, "200 OK", [("Content-Length", "0")]
            counter(status[:3]).inc()
            return start_response(status, _split_vary(headers), *exc_info)

        body = app(environ, start)
        return [] if empty else body

    return finished


def _refuse(refusal: FaultError, start_response: StartResponse) -> Iterable[bytes]:
    """Answer a request before all other layers."""
    start_response(
        f"{refusal.status} {HTTPStatus(refusal.status).phrase}",
        [("Content-Type", refusal.content_type), ("Content-Length", str(len(refusal.body)))],
    )
    return [refusal.body]


def _split_vary(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [
        (name, value)
        for name, values in headers
        for value in (values.split(", ") if name.lower() == "vary" else (values,))
    ]


def _root_document(req: falcon.Request, resp: falcon.Response, **_: Any) -> None:
    request.parse(req)
    _send(req, resp, HTTPStatus.OK, versions.root_document(_base(req)))


def _version_document(req: falcon.Request, resp: falcon.Response, path: str = "", **_: Any) -> None:
    if path == "v2.1":
        request.negotiate(req, resp)
    request.parse(req)
    _send(req, resp, HTTPStatus.OK, versions.version_document(path, _base(req)))


def _project_document(
    req: falcon.Request, resp: falcon.Response, path: str = "", project_id: str = "", **_: Any
) -> None:
    """Answer with the version document, for clients that have a project in their endpoint."""
    if req.method != "GET":
        raise not_found()
    if path == "v2.1":
        request.negotiate(req, resp)
    request.parse(req)
    request.check_project(project_id, req.context.caller)
    _send(req, resp, HTTPStatus.OK, versions.version_document(path, _base(req)))


def _choices(req: falcon.Request, resp: falcon.Response, **_: Any) -> None:
    request.parse(req)
    _send(req, resp, HTTPStatus.MULTIPLE_CHOICES, versions.choices_document(req.path, _base(req)))


def _nothing_there(req: falcon.Request, resp: falcon.Response, **_: Any) -> None:
    del req, resp
    raise not_found()


def _base(req: falcon.Request) -> str:
    """Return the client's view of scheme and host, without a port that the scheme implies, as WebOb does."""
    return req.prefix.removesuffix(":443" if req.scheme == "https" else ":80")


def _send(req: falcon.Request, resp: falcon.Response, status: HTTPStatus, body: bytes) -> None:
    resp.status = status.value
    resp.content_type = request.answer_type(req)
    resp.data = body
