# SPDX-License-Identifier: Apache-2.0
"""Recorded answers of a real Nova beside ours: each difference is listed with its reason, none of them is stale."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from falcon import testing

import bridge.api
from bridge.core.extend import Standing
from tests.unit.api.fakes import Api, FakeJournal

FIXTURES = Path(__file__).parents[1] / "fixtures" / "nova34"
DIFFERENCES = yaml.safe_load((Path(bridge.api.__file__).parent / "differences.yaml").read_text())
KNOWN = {case: entry["id"] for entry in DIFFERENCES for case in entry["cases"]}
RECORDED = [json.loads(line) for line in (FIXTURES / "answers.jsonl").read_text().splitlines()]
BY_SERVER = {"connection", "content-length"}  # the server's, or follows from the body
BY_FORM = {"x-openstack-request-id", "x-compute-request-id"}


def inventory() -> Mapping[str, Standing]:
    """Nova's servers as host agents would report them; one that is being scheduled is on no host anybody knows."""
    rows = json.loads((FIXTURES / "servers.json").read_text())
    return {
        row["uuid"]: Standing.ON_HOST if row["host"] else Standing.NO_HOST
        for row in rows
        if row["key"] != "nomapcell"
    }


@dataclass
class Answer:
    """What the application gave its server."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: str = ""


def send(request: Mapping[str, Any]) -> Answer:
    """The recorded request, made to us; a repeated header as a WSGI server hands it on."""
    headers: dict[str, str] = {}
    for name, value in request["headers"]:
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    environ = testing.create_environ(
        method=request["method"],
        path=request["path"],
        headers=headers,
        body=(request["body"] or "").encode(),
        host="127.0.0.1",
        port=8774,
    )
    answer = Answer()

    def start(status: str, sent: list[tuple[str, str]], *_: object) -> None:
        answer.status, answer.headers = int(status[:3]), sent

    answer.body = b"".join(Api(journal=FakeJournal(inventory())).app(environ, start)).decode()
    return answer


def shape(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Headers as a client sees them: names in any case, ids by their form, in any order."""
    return sorted(
        (name.lower(), "req-<uuid>" if name.lower() in BY_FORM and value.startswith("req-") else value)
        for name, value in headers
        if name.lower() not in BY_SERVER
    )


def differences(case: Mapping[str, Any]) -> list[str]:
    """What of our answer is not as recorded."""
    ours, theirs = send(case["request"]), case["response"]
    found = []
    if ours.status != theirs["status"]:
        found.append(f"status {ours.status}, recorded {theirs['status']}")
    if ours.body != theirs["body"]:
        found.append(f"body {ours.body!r}, recorded {theirs['body']!r}")
    mine, recorded = shape(ours.headers), shape([(name, value) for name, value in theirs["headers"]])
    if mine != recorded:
        found.append(f"headers {mine}, recorded {recorded}")
    return found


@pytest.mark.parametrize("case", RECORDED, ids=[case["case"] for case in RECORDED])
def test_the_answer_is_novas_or_the_difference_is_listed(case: Mapping[str, Any]) -> None:
    """Status, body to the byte, headers."""
    found = differences(case)
    if case["case"] in KNOWN:
        assert found, f"listed as {KNOWN[case['case']]} in differences.yaml, but it is the same"
    else:
        assert not found


def test_every_difference_has_its_reason() -> None:
    """The docs show them."""
    assert len({entry["id"] for entry in DIFFERENCES}) == len(DIFFERENCES)
    for entry in DIFFERENCES:
        assert entry.keys() == {"id", "nova", "bridge", "why", "cases"}
        assert all(entry[key] for key in ("id", "nova", "bridge", "why"))
