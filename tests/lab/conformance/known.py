# SPDX-License-Identifier: Apache-2.0
"""The known differences as rules: from what Nova answered to what we must answer instead.

Each rule has the id of its entry in bridge/api/differences.yaml. It looks at the request, never at the name of a
recording, and gives the whole answer: a difference is known only where ours is exactly that.
"""

import html
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from bridge.api import schema
from bridge.api.request import MAX, requested
from tests.lab.conformance.exchange import Answer, Exchange, Headers, Request

_MAX: Final = (2, 51)
_AFTER_JSON: Final = frozenset({200, 207, 400, 403, 500})
"""Of a request whose body was read: the schema, the policy, or what became of the events."""
_MAX_BODY: Final = 114688
_TOO_LARGE: Final = "Request is too large. Larger than max_request_body_size (%s).<br /><br />\n\n\n"
_EXTENDED: Final = "volume-extended"
_LATER_NAMES: Final = ("power-update", "accelerator-request-bound", "volume-reimaged")
_CANONICAL: Final = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_VENDOR: Final = "application/vnd.openstack.compute+json"
_FAULT: Final = "application/json; charset=UTF-8"
_HTML: Final = re.compile(r"<title>(\d+) ([^<]+)</title>.*<h1>[^<]*</h1>\s*(.*?)\s*</body>", re.DOTALL)
_PLAIN: Final = re.compile(r"\A(\d+) ([^\n]+)\n\n(.*?)\s*\Z", re.DOTALL)
_VERSION_HEADERS: Final = ("openstack-api-version", "x-openstack-nova-api-version", "vary")

Rows = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What we must answer, and the ids of the differences that make it another answer than the recorded one."""

    answer: Answer
    ids: tuple[str, ...]


def expected(exchange: Exchange, rows: Rows) -> Expected:
    """The recorded answer with every rule applied."""
    answer, ids = exchange.response, []
    for name, rule in RULES.items():
        changed = rule(exchange.request, answer, rows)
        if changed != answer:
            answer = changed
            ids.append(name)
    return Expected(answer=answer, ids=tuple(ids))


def _always_json(request: Request, answer: Answer, _rows: Rows) -> Answer:
    kind = (answer.header("Content-Type") or "").partition(";")[0]
    if kind not in {"text/html", "text/plain"}:
        return answer
    match = (_HTML if kind == "text/html" else _PLAIN).search(answer.body)
    headers = _with(answer.headers, "Content-Type", "application/json")
    if match is None:  # an answer to HEAD
        return replace(answer, headers=headers)
    words = html.unescape(match[3]).removesuffix("<br /><br />") + "<br /><br />"
    body = {"message": f"{words}\n\n\n", "code": f"{match[1]} {match[2]}", "title": match[2]}
    return replace(answer, headers=headers, body=json.dumps(body))


def _size_everywhere(request: Request, answer: Answer, _rows: Rows) -> Answer:
    if (
        len(request.body or b"") <= _MAX_BODY
        or answer.status == 413
        or request.path.startswith(("/v2/o", "/v2.1/o"))
    ):
        return answer
    body = {"message": _TOO_LARGE, "code": "413 Request Entity Too Large", "title": "Request Entity Too Large"}
    headers = tuple((name, value) for name, value in answer.headers if name.lower() not in _VERSION_HEADERS)
    return replace(
        answer, status=413, headers=_with(headers, "Content-Type", "application/json"), body=json.dumps(body)
    )


def _invalid_utf8(request: Request, answer: Answer, _rows: Rows) -> Answer:
    try:
        (request.body or b"").decode()
    except UnicodeDecodeError:
        return _fault(answer, 400, "badRequest", "Malformed request body") if answer.status >= 500 else answer
    return answer


def _being_scheduled(request: Request, answer: Answer, rows: Rows) -> Answer:
    if answer.status != 500 or "AttributeError" not in answer.body:
        return answer
    preferred = _VENDOR if _VENDOR in (request.header("Accept") or "") else "application/json"
    headers = _with(answer.headers, "Content-Type", preferred)
    answered = [{**event, **_result(code_of(event, rows))} for event in request.events]
    return _events(replace(answer, headers=headers), answered)


def _service_role(request: Request, answer: Answer, rows: Rows) -> Answer:
    if request.header("X-Auth-Token") != "<service>":
        return answer
    return _recoded(answer, lambda event: code_of(event, rows) if event["code"] == 404 else event["code"])


def _server_uuid_case(request: Request, answer: Answer, rows: Rows) -> Answer:
    return _recoded(
        answer,
        lambda event: (
            code_of(event, rows) if event["code"] == 404 and event["server_uuid"] not in rows else event["code"]
        ),
    )


def _network_events(request: Request, answer: Answer, _rows: Rows) -> Answer:
    return _recoded(
        answer,
        lambda event: 400 if event["name"].startswith("network-") and event["code"] != 404 else event["code"],
    )


def _tag_no_uuid(request: Request, answer: Answer, _rows: Rows) -> Answer:
    def code(event: Mapping[str, Any]) -> int:
        bad = event["name"] == _EXTENDED and not _CANONICAL.fullmatch(event.get("tag", ""))
        return 400 if bad and event["code"] != 404 else int(event["code"])

    return _recoded(answer, code)


def _max_microversion(request: Request, answer: Answer, _rows: Rows) -> Answer:
    body = re.sub(r'"version": "2\.\d+"', '"version": "2.51"', answer.body)
    body = re.sub(r"maximum is 2\.\d+\.", "maximum is 2.51.", body)
    version = _answered_in(answer)
    if version is None or version <= _MAX or answer.status == 406:
        return replace(answer, body=body)
    text = f"{version[0]}.{version[1]}"
    if not _asked_for_latest(request):
        return _fault(
            answer,
            406,
            "computeFault",
            f"Version {text} is not supported by the API. Minimum is 2.1 and maximum is 2.51.",
        )
    headers = tuple(
        (name, value.replace(text, "2.51") if name.lower() in _VERSION_HEADERS else value)
        for name, value in answer.headers
    )
    body = re.sub(r"'volume-extended'(, '[a-z-]+')+\]", "'volume-extended']", body)
    answer = replace(answer, headers=headers, body=body)
    if answer.status not in _AFTER_JSON or "Malformed request" in body or not _has_later_name(request):
        return answer
    words = schema.refusal(json.loads(request.body or b"null"), MAX)
    return answer if words is None else _fault(answer, 400, "badRequest", words)


def _has_later_name(request: Request) -> bool:
    """Whether an event has a name that a later microversion brought: in 2.51 the schema refuses it."""
    named = any(name.encode() in (request.body or b"") for name in _LATER_NAMES)
    return named and request.path.partition("?")[0].endswith("/os-server-external-events")


RULES: Final[Mapping[str, Callable[[Request, Answer, Rows], Answer]]] = {
    "always-json": _always_json,
    "size-limit-everywhere": _size_everywhere,
    "invalid-utf8": _invalid_utf8,
    "server-being-scheduled": _being_scheduled,
    "service-role": _service_role,
    "server-uuid-case": _server_uuid_case,
    "network-events": _network_events,
    "tag-no-uuid": _tag_no_uuid,
    "max-microversion": _max_microversion,
}
"""By the id in differences.yaml, in the order they apply."""


def code_of(event: Mapping[str, Any], rows: Rows) -> int:
    """The code we answer for an event that the schema accepted."""
    row = rows.get(str(event.get("server_uuid")).lower())
    if row is None or unmapped(row):
        return 404
    if event.get("name") != _EXTENDED or not _CANONICAL.fullmatch(event.get("tag", "")):
        return 400
    return 200 if row["host"] else 422


def unmapped(row: Mapping[str, Any]) -> bool:
    """A server that was being scheduled when the recording was made: no host can report it."""
    return row.get("key") == "nomapcell"


def _recoded(answer: Answer, code: Callable[[Mapping[str, Any]], int]) -> Answer:
    """The answer with another code per event; one that was recorded cut is left as it is."""
    if answer.status not in {200, 207} or answer.length is not None:
        return answer
    try:
        events = json.loads(answer.body)["events"]
    except (ValueError, KeyError, TypeError):
        return answer
    return _events(answer, [{**event, **_result(code(event))} for event in events])


def _events(answer: Answer, events: Sequence[Mapping[str, Any]]) -> Answer:
    status = 200 if all(event["code"] == 200 for event in events) else 207
    return replace(answer, status=status, body=json.dumps({"events": list(events)}))


def _result(code: int) -> dict[str, Any]:
    return {"status": "completed" if code == 200 else "failed", "code": code}


def _fault(answer: Answer, status: int, name: str, message: str) -> Answer:
    return replace(
        answer,
        status=status,
        headers=_with(answer.headers, "Content-Type", _FAULT),
        body=json.dumps({name: {"code": status, "message": message}}),
        length=None,
        codes=None,
    )


def _with(headers: Headers, name: str, value: str) -> Headers:
    return (*((key, old) for key, old in headers if key.lower() != name.lower()), (name, value))


def _answered_in(answer: Answer) -> tuple[int, int] | None:
    match = re.fullmatch(r"(\d+)\.(\d+)", answer.header("X-OpenStack-Nova-API-Version") or "")
    return (int(match[1]), int(match[2])) if match else None


def _asked_for_latest(request: Request) -> bool:
    asked = requested(request.header("OpenStack-API-Version"), request.header("X-OpenStack-Nova-API-Version"))
    return asked == "latest"
