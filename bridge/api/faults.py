# SPDX-License-Identifier: Apache-2.0
"""Refusals of the API in Nova's shapes. Only this module words an error body.

A current Nova has two shapes. Its own faults are {name: {code, message}}, with a charset. Faults of the web layer
before it are {message, code, title}, without a charset. Nova sends the second shape as HTML to clients that accept
HTML; ours are JSON always (differences.yaml).
"""

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from math import ceil
from types import MappingProxyType
from typing import Any, Final

import falcon

from bridge.core.errors import JournalUnavailableError

LOG = logging.getLogger(__name__)

JSON: Final = "application/json"
_FAULT_JSON: Final = "application/json; charset=UTF-8"
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})

_NAMES: Final[Mapping[int, str]] = MappingProxyType(
    {
        400: "badRequest",
        401: "unauthorized",
        403: "forbidden",
        404: "itemNotFound",
        409: "conflictingRequest",
        413: "overLimit",
        415: "badMediaType",
        429: "overLimit",
        501: "notImplemented",
        503: "serviceUnavailable",
    }
)
"""Nova's names of faults by status; each other status is a computeFault."""

_UNEXPECTED: Final = "Unexpected API Error. Please contact the administrator"
_TOO_LARGE: Final = (
    "Request is too large. Larger than max_request_body_size (%s).<br /><br />\n\n\n"  # Nova's own %s
)
_TOO_LONG: Final = "The request URI was too long for this server.<br /><br />\n\n\n"
_NOT_FOUND: Final = "The resource could not be found.<br /><br />\n\n\n"


class FaultError(Exception):
    """The refusal of a whole request; none of its events was accepted."""

    def __init__(
        self, status: int, body: bytes, content_type: str, headers: Mapping[str, str] = _NO_HEADERS
    ) -> None:
        super().__init__(status)
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers


def fault(status: int, message: str, headers: Mapping[str, str] = _NO_HEADERS) -> FaultError:
    """Return a fault in the words of Nova's own code."""
    body = {_NAMES.get(status, "computeFault"): {"code": status, "message": message}}
    return FaultError(status, json.dumps(body).encode(), _FAULT_JSON, headers)


def not_found() -> FaultError:
    """Refuse an unknown path, or an unknown method of a path, because Nova does not answer 405."""
    return _web_fault(HTTPStatus.NOT_FOUND, "Not Found", _NOT_FOUND)


def unauthorized(challenge: str) -> FaultError:
    """Refuse credentials in keystonemiddleware's words; `challenge` is the WWW-Authenticate header."""
    message = "The request you have made requires authentication."
    body = {"error": {"code": 401, "title": "Unauthorized", "message": message}}
    return FaultError(401, json.dumps(body).encode(), JSON, {"WWW-Authenticate": challenge})


def too_large() -> FaultError:
    """Refuse a body above the limit."""
    return _web_fault(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Request Entity Too Large", _TOO_LARGE)


def too_long() -> FaultError:
    """Refuse a path above the limit; the answer has no part of the path."""
    return _web_fault(HTTPStatus.REQUEST_URI_TOO_LONG, "Request-URI Too Long", _TOO_LONG)


def too_often(seconds: float) -> FaultError:
    """Refuse a caller, who may try again after `seconds`."""
    wait = str(max(1, ceil(seconds)))
    return fault(HTTPStatus.TOO_MANY_REQUESTS, "Too many requests; please come back later.", {"Retry-After": wait})


def write(resp: falcon.Response, refusal: FaultError) -> None:
    """Write a refusal into the answer; headers that were set before (version headers) stay."""
    resp.status = f"{refusal.status} {HTTPStatus(refusal.status).phrase}"
    resp.content_type = refusal.content_type
    resp.data = refusal.body
    resp.text = None
    for name, value in refusal.headers.items():
        resp.set_header(name, value)


def translate(ex: Exception) -> FaultError:
    """Return the refusal for any error; an unexpected error shows the caller no internal detail."""
    if isinstance(ex, FaultError):
        return ex
    if isinstance(ex, JournalUnavailableError):
        return fault(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "The journal cannot be written now; no event was accepted. Please try again.",
            {"Retry-After": str(max(1, round(ex.retry_after)))},
        )
    if isinstance(ex, falcon.HTTPRouteNotFound | falcon.HTTPMethodNotAllowed):
        return not_found()
    if isinstance(ex, falcon.HTTPError):
        return fault(ex.status_code, ex.description or ex.title or _UNEXPECTED)
    return fault(HTTPStatus.INTERNAL_SERVER_ERROR, _UNEXPECTED)


def handle(req: falcon.Request, resp: falcon.Response, ex: Exception, _params: dict[str, Any]) -> None:
    """Handle every error that falcon catches."""
    refusal = translate(ex)
    request_id = getattr(req.context, "request_id", None)
    if isinstance(ex, JournalUnavailableError):
        LOG.warning("request %s: answered 503, the journal is unavailable: %s", request_id, ex)
    elif refusal.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        LOG.error("request %s: unexpected error, answered 500", request_id, exc_info=ex)
    write(resp, refusal)


def _web_fault(status: HTTPStatus, title: str, message: str) -> FaultError:
    body = {"message": message, "code": f"{status.value} {title}", "title": title}
    return FaultError(status.value, json.dumps(body).encode(), JSON)
