# SPDX-License-Identifier: Apache-2.0
"""A real Nova 34 and a real API asked the same: their answers differ as differences.yaml says, and no further."""

import random
from collections.abc import Iterator
from functools import partial

import pytest

from tests.functional.wire.conftest import ROWS
from tests.lab.conformance import wire
from tests.lab.conformance.compare import differences
from tests.lab.conformance.exchange import Exchange, read_exchanges
from tests.lab.conformance.judge import Result, judge, tokens
from tests.lab.conformance.requests import made_up
from tests.lab.conformance.site import Site
from tests.lab.nova import PROJECTS, RealNova
from tests.lab.paths import ROOT

pytestmark = pytest.mark.functional

FIXTURES = ROOT / "tests" / "fixtures" / "nova34"
RECORDED = [exchange for name in ("answers", "more") for exchange in read_exchanges(FIXTURES / f"{name}.jsonl")]
AUTHORITY = "127.0.0.1:8774"
COUNT = 600
SEED = 34


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Ours, with the same servers and callers."""
    known = tokens([])
    callers = {token: {**known[token], "project_id": project} for token, project in PROJECTS.items()}
    with Site(tmp_path_factory.mktemp("site"), ROWS, callers) as running:
        yield running


def test_the_recordings_are_what_nova_answers(nova: RealNova) -> None:
    """To the byte; a body that was recorded as text cannot be sent again where it was none."""
    ask = partial(wire.send, host="127.0.0.1", port=nova.port, authority=AUTHORITY)
    found = {
        exchange.case: differences(ask(exchange.request), exchange.response)
        for exchange in RECORDED
        if b"\xff" not in (exchange.request.body or b"")
    }
    assert {case: what for case, what in found.items() if what} == {}


def test_made_up_requests_are_answered_as_nova_answers_them(nova: RealNova, site: Site) -> None:
    """Microversions, names, ids, media types, paths and bodies in any combination."""
    chance = random.Random(SEED)
    results: list[Result] = []
    for n in range(COUNT):
        request = made_up(chance, ROWS)
        answered = wire.send(request, host="127.0.0.1", port=nova.port, authority=AUTHORITY)
        exchange = Exchange(case=f"{n}: {request}", request=request, response=answered)
        send = partial(wire.send, host="127.0.0.1", port=site.port, authority=AUTHORITY)
        results.append(judge(exchange, ROWS, send))
    assert [result for result in results if result.found and not result.known] == []
    assert sum(not result.found for result in results) > COUNT / 4
