# SPDX-License-Identifier: Apache-2.0
"""Checks of every request before its resource, in Nova's order: size, microversion, content type, JSON, project.

A request without either of the two headers of a microversion gets 2.1; 2.51 is the highest version.

OpenStack-API-Version: `service version` pairs, the last pair for `compute` (in any case of letters) counts.
X-OpenStack-Nova-API-Version: the older header, a bare version; read only where the first does not name `compute`.

Source: nova/api/openstack/wsgi.py, Resource.__call__, Request and set_api_version_request;
microversion_parse.get_version.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final

import falcon

from bridge.api.faults import FaultError, fault, not_found, too_large
from bridge.api.identity import Identity

VERSIONED_PATH: Final = re.compile(r"/(v2|v2\.1)(/|\Z)")
DOCUMENT_PATH: Final = re.compile(r"/(?P<path>v2|v2\.1)/?\Z")

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


_SERVICE: Final = "compute"
_FORM: Final = re.compile(r"([1-9][0-9]*)\.([1-9][0-9]*|0)")
_MAX_TEXT: Final = 64  # of a refused version, in our answer


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """A microversion. Versions compare as numbers: 2.9 < 2.51."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


MIN: Final = Version(2, 1)
MAX: Final = Version(2, 51)
VOLUME_EXTENDED: Final = Version(2, 51)
"""The first version with the event `volume-extended`."""

VARY: Final = "OpenStack-API-Version, X-OpenStack-Nova-API-Version"


def requested(standard: str | None, legacy: str | None) -> str | None:
    """Return the version in the two headers of a request, repeated headers joined by commas, or None."""
    for pair in reversed((standard or "").split(",")):
        words = pair.split(maxsplit=1)
        if len(words) > 1 and words[0].lower() == _SERVICE:
            return words[1].strip()
    return legacy.split(",")[-1].strip() if legacy is not None else None


def negotiate(req: falcon.Request, resp: falcon.Response) -> Version:
    """Set the answer's version headers and return the answer's microversion; raises FaultError 400 or 406."""
    asked = requested(req.env.get("HTTP_OPENSTACK_API_VERSION"), req.env.get("HTTP_X_OPENSTACK_NOVA_API_VERSION"))
    version = supported(asked)
    resp.set_headers(_version_headers(version))
    return version


@lru_cache(maxsize=64)
def supported(asked: str | None) -> Version:
    """Return the version of the answer; raises FaultError 400 for a malformed, 406 for an unsupported version."""
    if asked is None:
        return MIN
    if asked == "latest":
        return MAX
    match = _FORM.fullmatch(asked)
    if match is None or len(asked) > _MAX_TEXT:
        raise fault(
            HTTPStatus.BAD_REQUEST,
            f"API Version String {asked[:_MAX_TEXT]} is of invalid format. Must be of format MajorNum.MinorNum.",
        )
    version = Version(int(match[1]), int(match[2]))
    if not MIN <= version <= MAX:
        raise _unsupported(version)
    return version


@lru_cache(maxsize=64)
def _version_headers(version: Version) -> Mapping[str, str]:
    """Return the headers that name the version of an answer."""
    return {
        "OpenStack-API-Version": f"{_SERVICE} {version}",
        "X-OpenStack-Nova-API-Version": str(version),
        "Vary": VARY,
    }


def _unsupported(version: Version) -> FaultError:
    return fault(
        HTTPStatus.NOT_ACCEPTABLE,
        f"Version {version} is not supported by the API. Minimum is {MIN} and maximum is {MAX}.",
        _version_headers(version),
    )


_MAX_SHOWN: Final = 200  # characters of a caller's text in a log line
_JSON: Final = "application/json"
_VENDOR: Final = "application/vnd.openstack.compute+json"
MEDIA_TYPES: Final = (_JSON, _VENDOR)
"""Content types of a body with events."""
_UNSAID: Final = frozenset({"", "text/plain"})  # the value that some servers give an absent header
_WITH_BODY: Final = frozenset({"POST", "PUT"})
_PROJECT: Final = re.compile(r"[0-9a-f-]+")  # Nova's default project_id_regex: another segment is another path


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
    accept = req.env.get("HTTP_ACCEPT") or ""
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


def shown(text: str) -> str:
    """Return a caller's text for a log line: printable ASCII, quotes escaped, at most 200 characters."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text[:_MAX_SHOWN]
    return text[:_MAX_SHOWN].encode("unicode_escape").decode().replace('"', '\\"')[:_MAX_SHOWN]
