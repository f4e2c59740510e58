# SPDX-License-Identifier: Apache-2.0
"""Recorded answers of a real Nova beside ours: each difference is listed with its reason, none of them is stale."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest
import yaml
from falcon import testing

import bridge.api
from bridge.api.policy import OsloPolicy
from bridge.api.settings import API_GROUPS
from bridge.core.extend import ServerState
from bridge.runtime import config
from tests.lab.conformance.exchange import Answer, Request, read_exchanges, read_rows
from tests.lab.conformance.judge import Result, authority, judge, tokens
from tests.lab.conformance.known import RULES, unmapped
from tests.lab.conformance.tokens import table
from tests.unit.api.fakes import Api, FakeJournal

FIXTURES = Path(__file__).parents[1] / "fixtures" / "nova34"
DIFFERENCES = yaml.safe_load((Path(bridge.api.__file__).parent / "differences.yaml").read_text())
RECORDINGS = ["answers.jsonl", "more.jsonl"]


def inventory() -> Mapping[str, ServerState]:
    """Nova's servers as host agents would report them; one that is being scheduled is on no host anybody knows."""
    return {
        server: ServerState.ON_HOST if row["host"] else ServerState.NO_HOST
        for server, row in read_rows(FIXTURES / "rows.json").items()
        if not unmapped(row)
    }


@cache
def results(recording: str) -> dict[str, Result]:
    """Every exchange of a recording, put through the application."""
    exchanges = read_exchanges(FIXTURES / recording)
    rows, where = read_rows(FIXTURES / "rows.json"), authority(exchanges)
    conf = config.load("extend-bridge-api", API_GROUPS, [], description="")
    app = Api(journal=FakeJournal(inventory()), auth=table(tokens(exchanges)), policy=OsloPolicy(conf)).app

    def send(request: Request) -> Answer:
        host, _, port = (request.header("Host") or where).rpartition(":")
        headers = {name: request.header(name) or "" for name, _ in request.headers if name.lower() != "host"}
        path, _, query = request.path.partition("?")
        environ = testing.create_environ(
            method=request.method,
            path=path,
            query_string=query,
            headers=headers,
            body=request.body or b"",
            host=host or port,
            port=int(port) if host else 80,
        )
        seen: list[tuple[int, list[tuple[str, str]]]] = []
        body = b"".join(app(environ, lambda status, sent, *_: seen.append((int(status[:3]), sent))))
        ((status, sent),) = seen
        return Answer(status=status, headers=tuple(sent), body="" if request.method == "HEAD" else body.decode())

    return {exchange.case: judge(exchange, rows, send) for exchange in exchanges}


@pytest.mark.parametrize("recording", RECORDINGS)
def test_every_answer_is_novas_or_differs_as_listed(recording: str) -> None:
    """Status, body to the byte, headers."""
    differing = [result for result in results(recording).values() if result.found and not result.known]
    assert not differing


def test_every_difference_has_its_reason_and_a_rule_that_checks_it() -> None:
    """The docs show them; one that no recorded request shows has an empty list of cases."""
    assert len({entry["id"] for entry in DIFFERENCES}) == len(DIFFERENCES)
    for entry in DIFFERENCES:
        assert entry.keys() == {"id", "nova", "bridge", "why", "cases"}
        assert all(entry[key] for key in ("id", "nova", "bridge", "why"))
    assert {entry["id"] for entry in DIFFERENCES if entry["cases"]} <= set(RULES)
    assert set(RULES) <= {entry["id"] for entry in DIFFERENCES}


def test_no_difference_is_stale() -> None:
    """Each is seen in a recorded answer, and its cases are still explained by it."""
    whole = {case: result for recording in RECORDINGS for case, result in results(recording).items()}
    for entry in DIFFERENCES:
        for case in entry["cases"]:
            assert entry["id"] in whole[case].known, case
