# SPDX-License-Identifier: Apache-2.0
"""The stand-in's WSGI application. It answers only the requests that the bridge, cinderclient and curl make."""

import json
import re
import uuid
from http import HTTPStatus
from typing import Any, Final, TypeVar

import falcon

from bridge.standin import views
from bridge.standin.faulty import Fault, Faults
from bridge.standin.volumes import Attachment, RefusedError, Volume, Volumes

_ATTACHMENTS_SINCE: Final = (3, 27)
_VERSION: Final = re.compile(r"([1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})")
_FAULT_NAMES: Final = {
    400: "badRequest",
    401: "unauthorized",
    404: "itemNotFound",
    406: "computeFault",
    500: "computeFault",
    503: "serviceUnavailable",
}
_NOT_FOUND: Final = "The resource could not be found."


class _Around:
    """The middleware of all requests: the header x-standin, request counts, faults of tests, and microversions."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.set_header("x-standin", "extend-bridge")
        request_id = f"req-{uuid.uuid4()}"
        resp.set_header("x-openstack-request-id", request_id)
        resp.set_header("x-compute-request-id", request_id)
        fault = self._faults.next(req.method, req.path)
        if fault is not None:
            _break(resp, fault)
            return
        if req.path.startswith("/v3"):
            req.context.version = _negotiate(req.get_header("OpenStack-API-Version"))
            major, minor = req.context.version
            resp.set_header("OpenStack-API-Version", f"volume {major}.{minor}")
            resp.set_header("Vary", "OpenStack-API-Version")


class VolumeResource:
    """The resource /v3/{project}/volumes/{id}, with its actions."""

    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes

    def on_get(self, req: falcon.Request, resp: falcon.Response, volume_id: str, project: str = "") -> None:
        """Answer with the volume."""
        resp.media = {"volume": views.volume_view(self._volumes.get(volume_id), project, req.prefix)}

    def on_get_encryption(
        self, req: falcon.Request, resp: falcon.Response, volume_id: str, project: str = ""
    ) -> None:
        """Answer with the volume's encryption."""
        del req, project
        resp.media = views.encryption_view(self._volumes.get(volume_id))

    def on_post_action(self, req: falcon.Request, resp: falcon.Response, volume_id: str, project: str = "") -> None:
        """Begin the extend of an os-extend request."""
        del project
        body = _body(req)
        extend = body.get("os-extend") if isinstance(body, dict) else None
        if not isinstance(extend, dict):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "The stand-in knows one action: os-extend.")
        new_size = extend.get("new_size")
        if not isinstance(new_size, int) or isinstance(new_size, bool) or new_size < 1:
            raise RefusedError(
                HTTPStatus.BAD_REQUEST,
                "Invalid input for field/attribute new_size: expected whole GiB, at least 1.",
            )
        self._volumes.extend(volume_id, new_size, version=req.context.version)
        resp.status = HTTPStatus.ACCEPTED.value
        resp.content_type = falcon.MEDIA_JSON


class VolumesResource:
    """The resource /v3/{project}/volumes/detail, for reconciliation."""

    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes

    def on_get_detail(self, req: falcon.Request, resp: falcon.Response, project: str = "") -> None:
        """Answer with all volumes, filtered and paged by `status`, `sort`, `limit` and `marker` as in Cinder."""
        wanted = req.get_param("status")
        found = _sorted([v for v in self._volumes.all() if wanted in {None, v.status}], req.params.get("sort"))
        limit = req.get_param_as_int("limit", min_value=1) or 1000
        rest = _after(found, req.get_param("marker"))
        body: dict[str, Any] = {"volumes": [views.volume_view(v, project, req.prefix) for v in rest[:limit]]}
        if len(rest) > limit:
            query = falcon.to_query_str({"status": wanted, "limit": limit, "marker": rest[limit - 1].id})
            body["volumes_links"] = [{"rel": "next", "href": f"{req.prefix}{req.path}{query}"}]
        resp.media = body


class AttachmentsResource:
    """The resource /v3/{project}/attachments, since microversion 3.27."""

    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes

    def on_get(self, req: falcon.Request, resp: falcon.Response, project: str = "") -> None:
        """Answer with summaries of all attachments, or of one volume's with ?volume_id=."""
        del project
        resp.media = {"attachments": [views.attachment_summary(v, a) for v, a in self._of(req)]}

    def on_get_detail(self, req: falcon.Request, resp: falcon.Response, project: str = "") -> None:
        """Answer with attachments and their connection data, newest first, paged by `limit` and `marker`."""
        del project
        every = sorted(self._of(req), key=lambda pair: (pair[1].attached_at, pair[1].id), reverse=True)
        volumes = {attachment.id: volume for volume, attachment in every}
        rest = _after([attachment for _, attachment in every], req.get_param("marker"))
        limit = req.get_param_as_int("limit", min_value=1) or 1000
        resp.media = {"attachments": [views.attachment_view(volumes[a.id], a) for a in rest[:limit]]}

    def on_get_one(self, req: falcon.Request, resp: falcon.Response, attachment_id: str, project: str = "") -> None:
        """Answer with one attachment and its connection data."""
        del project
        _since(req, _ATTACHMENTS_SINCE)
        resp.media = {"attachment": views.attachment_view(*self._volumes.attachment(attachment_id))}

    def _of(self, req: falcon.Request) -> list[Any]:
        _since(req, _ATTACHMENTS_SINCE)
        wanted = req.get_param("volume_id")
        return [(v, a) for v in self._volumes.all() if wanted in {None, v.id} for a in v.attachments]


_Row = TypeVar("_Row", Volume, Attachment)


def _sorted(found: list[Volume], sort: object) -> list[Volume]:
    """Sort by the first key of ?sort=key:direction,... and then by id; without ?sort= only by id."""
    first = sort[0] if isinstance(sort, list) else str(sort or "id").partition(",")[0]
    key, _, direction = str(first).partition(":")
    name = key if key in {"created_at", "updated_at"} else "id"
    return sorted(found, key=lambda v: (getattr(v, name), v.id), reverse=direction == "desc")


def _after(found: list[_Row], marker: str | None) -> list[_Row]:
    """Return the rows behind the marker's row; raises RefusedError 404 when no row has the marker's id."""
    if marker is None:
        return found
    place = next((number for number, row in enumerate(found) if row.id == marker), None)
    if place is None:
        raise RefusedError(HTTPStatus.NOT_FOUND, f"Marker {marker} could not be found.")
    return found[place + 1 :]


def build(volumes: Volumes, faults: Faults) -> "falcon.App[Any, Any]":
    """Build the application over the given state."""
    app: falcon.App[Any, Any] = falcon.App(middleware=[_Around(faults)])
    app.req_options.strip_url_path_trailing_slash = True
    app.add_error_handler(Exception, _handle)
    app.add_error_handler(falcon.HTTPError, _handle)  # this replaces falcon's own handler
    app.add_route("/", _Versions(HTTPStatus.MULTIPLE_CHOICES))
    app.add_route("/v3", _Versions(HTTPStatus.OK))
    one, many, attachments = VolumeResource(volumes), VolumesResource(volumes), AttachmentsResource(volumes)
    for prefix in ("/v3", "/v3/{project}"):
        app.add_route(f"{prefix}/volumes/detail", many, suffix="detail")
        app.add_route(f"{prefix}/volumes/{{volume_id}}", one)
        app.add_route(f"{prefix}/volumes/{{volume_id}}/action", one, suffix="action")
        app.add_route(f"{prefix}/volumes/{{volume_id}}/encryption", one, suffix="encryption")
        app.add_route(f"{prefix}/attachments", attachments)
        app.add_route(f"{prefix}/attachments/detail", attachments, suffix="detail")
        app.add_route(f"{prefix}/attachments/{{attachment_id}}", attachments, suffix="one")
    return app


class _Versions:
    def __init__(self, status: HTTPStatus) -> None:
        self._status = status

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.status = self._status.value
        resp.media = views.versions_view(req.prefix)


def _negotiate(header: str | None) -> tuple[int, int]:
    for pair in reversed((header or "").split(",")):
        words = pair.lower().split(maxsplit=1)
        if len(words) == 2 and words[0] == "volume":  # noqa: PLR2004 - service and version
            text = words[1].strip()
            if text == "latest":
                return views.MAX
            match = _VERSION.fullmatch(text)
            if match is None:
                raise RefusedError(
                    HTTPStatus.BAD_REQUEST,
                    f"API Version String {text[:64]} is of invalid format. Must be of format MajorNum.MinorNum.",
                )
            version = int(match[1]), int(match[2])
            if not views.MIN <= version <= views.MAX:
                raise RefusedError(
                    HTTPStatus.NOT_ACCEPTABLE,
                    f"Version {text} is not supported by the API. Minimum is 3.0 and maximum is 3.71.",
                )
            return version
    return views.MIN


def _since(req: falcon.Request, version: tuple[int, int]) -> None:
    if req.context.version < version:
        raise RefusedError(HTTPStatus.NOT_FOUND, _NOT_FOUND)


def _body(req: falcon.Request) -> Any:
    try:
        return json.loads(req.bounded_stream.read())
    except (ValueError, RecursionError) as ex:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "Malformed request body") from ex


def _break(resp: falcon.Response, fault: Fault) -> None:
    resp.complete = True
    if fault is Fault.BAD_JSON:
        resp.content_type = falcon.MEDIA_JSON
        resp.data = b'{"volume": {"id": '
        return
    _refuse(resp, HTTPStatus(fault.status), "The stand-in was told to fail.")


def _handle(_req: falcon.Request, resp: falcon.Response, ex: Exception, _params: dict[str, Any]) -> None:
    if isinstance(ex, RefusedError):
        _refuse(resp, ex.status, str(ex))
    elif isinstance(ex, falcon.HTTPRouteNotFound | falcon.HTTPMethodNotAllowed):
        _refuse(resp, HTTPStatus.NOT_FOUND, _NOT_FOUND)
    elif isinstance(ex, falcon.HTTPError):
        _refuse(resp, HTTPStatus(ex.status_code), ex.description or ex.title or "")
    else:
        raise ex


def _refuse(resp: falcon.Response, status: HTTPStatus, message: str) -> None:
    resp.status = status.value
    resp.content_type = falcon.MEDIA_JSON
    name = _FAULT_NAMES.get(status.value, "computeFault")
    resp.data = json.dumps({name: {"code": status.value, "message": message}}).encode()
