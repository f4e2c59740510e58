# SPDX-License-Identifier: Apache-2.0
"""The listener as the client of an endpoint that answers as the recorded Nova did: what becomes of each event."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from keystoneauth1.adapter import Adapter
from keystoneauth1.session import Session
from keystoneauth1.token_endpoint import Token

from bridge.core.extend import ExtendKey
from bridge.core.reasons import Reason
from bridge.runtime.rest import NovaEventsClient, RestClient
from listener.endpoint import EndpointClient
from listener.verdicts import Hold, Judgement, Kind, Settle
from tests.lab.conformance.exchange import Exchange, read_exchanges, read_rows
from tests.lab.endpoint import RecordingEndpoint
from tests.lab.recorded_nova import RecordedNova, listeners_own

FIXTURES = Path(__file__).parents[1] / "fixtures" / "nova34"
ROWS = read_rows(FIXTURES / "rows.json")
EXCHANGES = [exchange for name in ("answers", "more") for exchange in read_exchanges(FIXTURES / f"{name}.jsonl")]
OURS = [exchange for exchange in EXCHANGES if listeners_own(exchange)]
DISTINCT = list({exchange.request.body: exchange for exchange in reversed(OURS)}.values())  # by what was sent
BY_CODE = {200: Kind.DELIVERED, 400: Kind.PARK, 404: Kind.SLOW, 422: Kind.SLOW}


@contextmanager
def client(nova: RecordedNova) -> Iterator[tuple[EndpointClient, RecordingEndpoint]]:
    """One that carries to such a Nova."""
    with RecordingEndpoint() as endpoint:
        endpoint.behaviour = nova
        session = Session(auth=Token(endpoint.url, "<admin>"), timeout=5)
        client = RestClient(Adapter(session, endpoint_override=endpoint.url), timeout=5, once_more=False)
        yield EndpointClient(NovaEventsClient(client)), endpoint


def keys(exchange: Exchange) -> list[ExtendKey]:
    """The distinct disks of a request."""
    return list(dict.fromkeys(ExtendKey(e["server_uuid"], e["tag"]) for e in exchange.request.events))


def deliver(exchange: Exchange, nova: RecordedNova) -> list[Judgement]:
    """What each request of one delivery came to."""
    with client(nova) as (carrier, _):
        return list(carrier.deliver(keys(exchange), "req-of-the-user"))


def kinds(judgements: list[Judgement]) -> dict[ExtendKey, Kind]:
    """What became of each event in the end."""
    return {
        key: verdict.kind
        for judgement in judgements
        if isinstance(judgement, Settle)
        for key, verdict in judgement.verdicts.items()
    }


def wanted(key: ExtendKey) -> Kind:
    """By the servers behind the recording: a 500 of one event alone is tried again, slowly."""
    row = ROWS.get(key.server_id)
    return Kind.DELIVERED if row is not None and row["host"] else Kind.SLOW


def admin(exchange: Exchange) -> bool:
    return exchange.request.header("X-Auth-Token") == "<admin>"


@pytest.mark.parametrize(
    "exchange",
    [e for e in DISTINCT if admin(e) and len({str(event["server_uuid"]) for event in e.request.events}) < 10],
    ids=lambda exchange: exchange.case,
)
def test_every_event_of_a_recorded_request_has_its_verdict(exchange: Exchange) -> None:
    """Also those beside one that makes Nova answer 500, and those of a request that is too large."""
    assert kinds(deliver(exchange, RecordedNova(EXCHANGES, ROWS))) == {key: wanted(key) for key in keys(exchange)}


def test_the_recordings_have_each_kind_of_answer() -> None:
    """Else the test above shows less than it says."""
    assert {200, 207, 413, 500} <= {exchange.response.status for exchange in OURS if admin(exchange)}


def test_a_server_being_scheduled_costs_its_neighbours_one_more_request() -> None:
    """Nova answers the whole request 500."""
    (exchange,) = [e for e in OURS if e.case == "mapping-without-cell-beside-good"]
    with client(RecordedNova(EXCHANGES, ROWS)) as (carrier, endpoint):
        verdicts = kinds(list(carrier.deliver(keys(exchange), "req-1")))
    assert sorted(kind.value for kind in verdicts.values()) == ["delivered", "slow"]
    assert [len(events) for _, events in endpoint.requests] == [2, 1, 1]


def test_many_servers_and_a_404_for_each_of_them_say_something_of_our_role() -> None:
    """As a Nova answers a user with the role service alone: nothing is given up, an operator must mend it."""
    (exchange,) = [e for e in OURS if e.case == "1000-events-unknown"]
    with client(RecordedNova(EXCHANGES, ROWS)) as (carrier, _):
        *_, last = carrier.deliver(keys(exchange)[:100], "req-1")
    assert last == Hold(Reason.ALL_HIDDEN)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("no-token", Reason.UNAUTHORIZED),
        ("bad-token-fernet-like", Reason.UNAUTHORIZED),
        ("member-token-403", Reason.FORBIDDEN),
        ("version-too-high", Reason.WRONG_VERSION),
        ("path-unknown", Reason.WRONG_URL),
        ("path-trailing-slash", Reason.WRONG_URL),
        ("accept-any-unknown-path", Reason.WRONG_URL),
        ("path-no-version", Reason.UNEXPECTED_STATUS),
    ],
)
def test_what_an_operator_must_mend_settles_nothing(case: str, reason: Reason) -> None:
    """The events wait."""
    (fault,) = [exchange for exchange in EXCHANGES if exchange.case == case]
    (good,) = [exchange for exchange in OURS if exchange.case == "good-2.51"]
    assert deliver(good, RecordedNova(EXCHANGES, ROWS, fault=fault)) == [Hold(reason)]


def test_a_nova_that_does_not_know_the_event_parks_it() -> None:
    """As one below 2.51 answers; the event alone, since its neighbours would be answered the same."""
    (fault,) = [exchange for exchange in EXCHANGES if exchange.case == "good-2.50-refused"]
    (good,) = [exchange for exchange in OURS if exchange.case == "good-2.51"]
    assert set(kinds(deliver(good, RecordedNova(EXCHANGES, ROWS, fault=fault))).values()) == {Kind.PARK}
