# SPDX-License-Identifier: Apache-2.0
"""Checks of every request before its resource, in Nova's order: size, microversion, content type, JSON, project.

Source: nova/api/openstack/wsgi.py, Resource.__call__ and Request.
"""

import json
import re
from http import HTTPStatus
from typing import Any, Final

import falcon

from bridge.api import versions
from bridge.api.faults import fault, not_found, too_large
from bridge.api.identity import Identity

MAX_BODY: Final = 114688
"""Limit for the bytes of a request body, as oslo.middleware's sizelimit in front of Nova: about 780 events."""


def check_length(req: falcon.Request) -> None:
    """Refuse a body whose Content-Length is too large; raises FaultError."""
    if (req.content_length or 0) > MAX_BODY:
        raise too_large()


def read_body(req: falcon.Request) -> bytes:
    """Return the whole body, or b"" without a body. Raises FaultError for a body that is too large or broken off.

    A chunked body does not have a length, so it is read up to the limit.
    """
    try:
        if req.content_length is not None:
            body = req.bounded_stream.read(req.content_length)
        elif req.env.get("wsgi.input_terminated"):
            body = req.stream.read(MAX_BODY + 1)
        else:
            return b""
    except (OSError, ValueError) as ex:  # the client has gone, was silent for too long, or broke the chunking
        raise fault(HTTPStatus.BAD_REQUEST, "Malformed request body") from ex
    if len(body) > MAX_BODY:
        raise too_large()
    if len(body) < (req.content_length or 0):
        raise fault(HTTPStatus.BAD_REQUEST, "Malformed request body")
    return bytes(body)


_JSON: Final = "application/json"
_VENDOR: Final = "application/vnd.openstack.compute+json"
MEDIA_TYPES: Final = (_JSON, _VENDOR)
"""Content types of a body with events."""
_UNSAID: Final = frozenset({"", "text/plain"})  # the value that some servers give an absent header
_WITH_BODY: Final = frozenset({"POST", "PUT"})
_PROJECT: Final = re.compile(r"[0-9a-f-]+")  # Nova's default project_id_regex: another segment is another path


def negotiate(req: falcon.Request, resp: falcon.Response) -> versions.Version:
    """Set the answer's version headers and return the answer's microversion; raises FaultError 400 or 406."""
    version = versions.of_request(req)
    resp.set_headers(versions.headers(version))
    return version


def parse(req: falcon.Request) -> Any:
    """Return the JSON of the body, None without a body; raises FaultError 415, 413 or 400."""
    kind = (req.content_type or "").partition(";")[0]
    if kind not in MEDIA_TYPES and kind not in _UNSAID:
        raise fault(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Unsupported Content-Type")
    if req.method not in _WITH_BODY:
        return None
    raw = read_body(req)
    if not raw:
        return None
    try:
        return json.loads(raw.decode())
    except (ValueError, RecursionError) as ex:
        raise fault(HTTPStatus.BAD_REQUEST, "Malformed request body") from ex


def check_project(project_id: str | None, caller: Identity) -> None:
    """Refuse a path with another project than the caller's; raises FaultError 400.

    A `project_id` of None means a path without a project. A caller without a project may name any project.
    """
    if project_id is not None and caller.project is not None and project_id != caller.project:
        raise fault(
            HTTPStatus.BAD_REQUEST,
            f"Malformed request URL: URL's project_id '{project_id}' doesn't match "
            f"Context's project_id '{caller.project}'",
        )


def check_path(project_id: str | None) -> None:
    """Refuse a path whose segment cannot be a project; raises FaultError 404."""
    if project_id is not None and not _PROJECT.fullmatch(project_id):
        raise not_found()


def answer_type(req: falcon.Request) -> str:
    """Return the Content-Type of a good answer: Nova's own where Accept prefers it, else application/json.

    Source: nova/api/openstack/urlmap.py, Accept.best_match: the higher quality, then the mask with fewer wildcards.
    """
    accept = req.get_header("Accept") or ""
    if _VENDOR not in accept:  # for a wildcard alone the first of the two is the answer
        return _JSON
    best, quality, mask = _JSON, -1.0, "*/*"
    for offered in MEDIA_TYPES:
        for accepted, value in _masks(accept):
            if value < quality or (value == quality and mask.count("*") <= accepted.count("*")):
                continue
            if _matches(accepted, offered):
                best, quality, mask = offered, value, accepted
    return best


def _masks(accept: str) -> list[tuple[str, float]]:
    found = []
    for part in accept.split(","):
        mask, *parameters = (piece.strip() for piece in part.split(";"))
        stated = dict(piece.partition("=")[::2] for piece in parameters)
        try:
            found.append((mask, float(stated.get("q", "1").strip('"'))))
        except ValueError:
            continue
    return found


def _matches(mask: str, offered: str) -> bool:
    if "*" not in mask:
        return mask == offered
    return mask == "*/*" or mask[:-2] == offered.partition("/")[0]
