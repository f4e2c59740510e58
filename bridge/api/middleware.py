# SPDX-License-Identifier: Apache-2.0
"""One line per request: which, who, what, how long.

Never a token, a body or a query, and nothing of the caller's unescaped.

Behind a proxy: links and addresses as the proxy saw them, by oslo.middleware's http_proxy_to_wsgi.

Off unless [oslo_middleware] enable_proxy_headers_parsing says that there is a proxy which sets these headers
itself: from anybody else they would be made up.
"""

import logging
import time
import uuid
from typing import Final

import falcon
from oslo_config import cfg
from oslo_middleware import http_proxy_to_wsgi

from bridge.api.faults import not_found
from bridge.api.identity import Authenticator
from bridge.api.request import check_length
from bridge.api.versions import DOCUMENT_PATH, VERSIONED_PATH
from bridge.core.extend import clean_request_id
from bridge.http.server import WsgiApp

GROUP: Final = "oslo_middleware"


def behind_proxy(app: WsgiApp, conf: cfg.ConfigOpts) -> WsgiApp:
    """The application, in front of it the filter where it is switched on."""
    conf.register_opts(http_proxy_to_wsgi.OPTS, group=GROUP)
    if not conf[GROUP].enable_proxy_headers_parsing:
        return app
    wrapped: WsgiApp = http_proxy_to_wsgi.HTTPProxyToWSGI(app, conf)
    return wrapped


LOG = logging.getLogger(__name__)

_MAX_TEXT: Final = 200


class AccessLog:
    """falcon middleware; the first, so that refusals of the others are logged as well."""

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        """Note the time."""
        req.context.started = time.monotonic()

    def process_response(self, req: falcon.Request, resp: falcon.Response, _resource: object, _ok: bool) -> None:
        """Write the line."""
        context = req.context
        who = getattr(context, "caller", None)
        LOG.info(
            'request %s (%s) from %s user %s: "%s %s" %s in %.1f ms',
            context.request_id,
            context.global_request_id or "-",
            shown(req.remote_addr or "-"),
            shown(who.user) if who is not None else "-",
            shown(req.method),
            shown(req.path),
            resp.status_code,
            (time.monotonic() - context.started) * 1e3,
        )


def shown(text: str) -> str:
    """A text of the caller's as it may stand in a log line: printable ASCII, no quotes, at most 200 characters."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text[:_MAX_TEXT]
    return text[:_MAX_TEXT].encode("unicode_escape").decode().replace('"', '\\"')[:_MAX_TEXT]


class RequestIds:
    """Our id of the request in both headers, as Nova; the caller's own becomes the global id."""

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        """Make the id and read the caller's."""
        req.context.request_id = f"req-{uuid.uuid4()}"
        req.context.global_request_id = clean_request_id(req.get_header("X-OpenStack-Request-ID"))

    def process_response(self, req: falcon.Request, resp: falcon.Response, _resource: object, _ok: bool) -> None:
        """Send the id, except with the unversioned documents, where Nova sends none."""
        if VERSIONED_PATH.match(req.path):
            resp.set_header("x-openstack-request-id", req.context.request_id)
            resp.set_header("x-compute-request-id", req.context.request_id)


class Doorkeeper:
    """Size, then authentication. The version documents are open to everybody."""

    def __init__(self, auth: Authenticator) -> None:
        self._auth = auth

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        """Raises FaultError 413 or 401."""
        check_length(req)
        if VERSIONED_PATH.match(req.path) and not DOCUMENT_PATH.match(req.path):
            req.context.caller = self._auth.authenticate(req)
        if req.method not in falcon.COMBINED_METHODS:
            raise not_found()
