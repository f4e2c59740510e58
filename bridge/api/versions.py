# SPDX-License-Identifier: Apache-2.0
"""Microversions, negotiated like Nova's, and the version documents by which clients discover the API.

A request without either of the two headers gets 2.1; 2.51 is the highest version.

OpenStack-API-Version: `service version` pairs, the last pair for `compute` (in any case of letters) counts.
X-OpenStack-Nova-API-Version: the older header, a bare version; read only where the first does not name `compute`.
Source: nova/api/openstack/wsgi.py set_api_version_request and microversion_parse.get_version.

keystoneauth reads version, min_version and links of a document.
"""

import json
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import falcon

from bridge.api.faults import FaultError, fault, too_long

VERSIONED_PATH: Final = re.compile(r"/(v2|v2\.1)(/|\Z)")
DOCUMENT_PATH: Final = re.compile(r"/(?P<path>v2|v2\.1)/?\Z")

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


def of_request(req: falcon.Request) -> Version:
    """Return the version of the answer to a request; raises FaultError 400 or 406."""
    return negotiate(
        requested(req.get_header("OpenStack-API-Version"), req.get_header("X-OpenStack-Nova-API-Version"))
    )


def negotiate(asked: str | None) -> Version:
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


def headers(version: Version) -> dict[str, str]:
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
        headers(version),
    )


_UPDATED_V2: Final = "2025-07-04T12:00:00Z"  # as Nova's own documents say
_UPDATED_V21: Final = "2013-07-23T11:33:21Z"
_MAX_LINK: Final = 8192
_PATH_SAFE: Final = "/~!$&'()*+,;=:@"  # the characters that a path has unencoded (RFC 3986)
_IDS: Final = {"v2": "v2.0", "v2.1": "v2.1"}


def root_document(base: str) -> bytes:
    """Return the document of GET /: both versions. `base` is scheme and host as the client sees them."""
    return _encode({"versions": [_version("v2", base), _version("v2.1", base)]})


def version_document(path: str, base: str) -> bytes:
    """Return the document of GET /v2.1/ (or the legacy /v2/): one version in full."""
    document = _version(path, base)
    document["links"].append({"rel": "describedby", "type": "text/html", "href": "http://docs.openstack.org/"})
    document["media-types"] = _media_types(path)
    return _encode({"version": document})


def choices_document(unversioned: str, base: str) -> bytes:
    """Return the links to an unversioned path under each version; raises FaultError 414 where they are too long.

    `unversioned` is the decoded path; encoding makes the path up to nine times as long.
    """
    rest = quote(unversioned.strip("/"), safe=_PATH_SAFE)
    if len(rest) > _MAX_LINK:
        raise too_long()
    return _encode(
        {
            "choices": [
                {
                    "id": _IDS[path],
                    "status": _status(path),
                    "links": [{"rel": "self", "href": f"{base}/{path}/{rest}"}],
                    "media-types": _media_types(path),
                }
                for path in _IDS
            ]
        }
    )


def _version(path: str, base: str) -> dict[str, Any]:
    legacy = path == "v2"
    return {
        "id": _IDS[path],
        "status": _status(path),
        "version": "" if legacy else str(MAX),
        "min_version": "" if legacy else str(MIN),
        "updated": _UPDATED_V2 if legacy else _UPDATED_V21,
        "links": [{"rel": "self", "href": f"{base}/{path}/"}],
    }


def _status(path: str) -> str:
    return "DEPRECATED" if path == "v2" else "CURRENT"


def _media_types(path: str) -> list[dict[str, str]]:
    number = path.removeprefix("v")
    return [{"base": "application/json", "type": f"application/vnd.openstack.compute+json;version={number}"}]


def _encode(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode()
