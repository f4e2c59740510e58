# SPDX-License-Identifier: Apache-2.0
"""The version documents by which clients discover the API. keystoneauth reads version, min_version and links."""

import json
from typing import Any, Final
from urllib.parse import quote

from bridge.api.faults import too_long
from bridge.api.request import MAX, MIN

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
