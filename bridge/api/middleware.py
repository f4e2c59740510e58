# SPDX-License-Identifier: Apache-2.0
"""falcon middleware around every request: access log, request ids, size and authentication.

The access log holds one line per request, never a token, a body, a query, or a caller's unescaped text.
"""

import logging
import time
import uuid
from typing import Final

import falcon

from bridge.api.faults import not_found
from bridge.api.identity import Authenticator
from bridge.api.request import check_length
from bridge.api.versions import DOCUMENT_PATH, VERSIONED_PATH
from bridge.core.extend import clean_request_id

ACCESS_LOG = logging.getLogger("bridge.api.access")
"""A logger with its own name, by which operators filter the access log or send it elsewhere."""

_MAX_TEXT: Final = 200


class AccessLog:
    """The access log of requests. It is the first middleware, because refusals of the others are logged as well."""

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        """Note the time at which the request began."""
        req.context.started = time.monotonic()

    def process_response(self, req: falcon.Request, resp: falcon.Response, _resource: object, _ok: bool) -> None:
        """Write the request's line of the access log."""
        context = req.context
        who = getattr(context, "caller", None)
        ACCESS_LOG.info(
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
    """Return a caller's text for a log line: printable ASCII, quotes escaped, at most 200 characters."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text[:_MAX_TEXT]
    return text[:_MAX_TEXT].encode("unicode_escape").decode().replace('"', '\\"')[:_MAX_TEXT]


class RequestIds:
    """Request ids: our id is sent in both headers, as Nova's; the caller's own becomes the global id."""

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        """Make our request id, and read the caller's."""
        req.context.request_id = f"req-{uuid.uuid4()}"
        req.context.global_request_id = clean_request_id(req.get_header("X-OpenStack-Request-ID"))

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
        check_length(req)
        if VERSIONED_PATH.match(req.path) and not DOCUMENT_PATH.match(req.path):
            req.context.caller = self._auth.authenticate(req)
        if req.method not in falcon.COMBINED_METHODS:
            raise not_found()
