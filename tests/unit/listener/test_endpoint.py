# SPDX-License-Identifier: Apache-2.0
"""The POST is the one Cinder makes; what comes back is a value, whatever happens."""

import json
from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import uuid4

import pytest
import requests
import requests_mock
from hypothesis import given
from hypothesis import strategies as st
from keystoneauth1.adapter import Adapter
from keystoneauth1.identity.v3 import Password
from keystoneauth1.session import Session
from keystoneauth1.token_endpoint import Token

from bridge.core.extend import ExtendKey
from bridge.core.reasons import Reason
from bridge.runtime.rest import Answer, NoAnswer, NovaEventsClient, RestClient, retry_after
from listener.endpoint import EndpointClient
from listener.verdicts import Hold, Settle, Split

BASE: Final = "http://nova.test/v2.1"
URL: Final = f"{BASE}/os-server-external-events"
KEYSTONE: Final = "http://keystone.test/v3"
KEYS: Final = [ExtendKey(str(uuid4()), str(uuid4())) for _ in range(32)]
CLOCK: Final = 1_000_000_000.0


@pytest.fixture
def endpoint() -> NovaEventsClient:
    session = Session(auth=Token(BASE, "token"), timeout=5)
    client = RestClient(Adapter(session, endpoint_override=BASE), timeout=5, once_more=False, clock=lambda: CLOCK)
    return NovaEventsClient(client)


def test_the_request_has_the_form_of_cinders_own(
    endpoint: NovaEventsClient, requests_mock: requests_mock.Mocker
) -> None:
    requests_mock.post(URL, json={"events": []})
    endpoint.post(KEYS[:2], "req-of-the-user")
    (sent,) = requests_mock.request_history
    assert sent.json() == {
        "events": [
            {"name": "volume-extended", "server_uuid": key.server_id, "tag": key.volume_id} for key in KEYS[:2]
        ]
    }
    assert sent.headers["OpenStack-API-Version"] == "compute 2.51"
    assert sent.headers["X-OpenStack-Nova-API-Version"] == "2.51"
    assert sent.headers["X-OpenStack-Request-ID"] == "req-of-the-user"
    assert sent.headers["X-Auth-Token"] == "token"
    assert sent.headers["Content-Type"] == "application/json"


def test_an_answer_is_its_status_its_json_and_when_to_come_back(
    endpoint: NovaEventsClient, requests_mock: requests_mock.Mocker
) -> None:
    requests_mock.post(URL, status_code=503, json={"a": 1}, headers={"Retry-After": "7"})
    assert endpoint.post(KEYS[:1], "req-1") == Answer(status=503, body={"a": 1}, retry_after=7.0)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"\xff\xfe\xfd", b"[" * 200_000, b'"' + b"x" * (5 * 1024 * 1024) + b'"']
)
def test_a_body_that_is_no_bearable_json_is_none(
    body: bytes, endpoint: NovaEventsClient, requests_mock: requests_mock.Mocker
) -> None:
    requests_mock.post(URL, content=body)
    assert endpoint.post(KEYS[:1], "req-1") == Answer(status=200)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (requests.exceptions.ConnectTimeout, Reason.TIMED_OUT),
        (requests.exceptions.ReadTimeout, Reason.TIMED_OUT),
        (requests.exceptions.ConnectionError, Reason.UNREACHABLE),
        (requests.exceptions.SSLError, Reason.UNREACHABLE),
        (requests.exceptions.ChunkedEncodingError, Reason.UNREACHABLE),
        (requests.exceptions.InvalidURL, Reason.UNREACHABLE),
    ],
)
def test_no_answer_is_a_value(
    error: type[Exception], reason: Reason, endpoint: NovaEventsClient, requests_mock: requests_mock.Mocker
) -> None:
    requests_mock.post(URL, exc=error)
    assert endpoint.post(KEYS[:1], "req-1") == NoAnswer(reason)
    assert len(requests_mock.request_history) == 1  # no retry but ours


def test_a_redirect_is_an_answer_and_not_followed(
    endpoint: NovaEventsClient, requests_mock: requests_mock.Mocker
) -> None:
    requests_mock.post(URL, status_code=302, headers={"Location": "http://elsewhere.test/"})
    assert endpoint.post(KEYS[:1], "req-1") == Answer(status=302)


def with_keystone(mocker: requests_mock.Mocker, token: Callable[[], dict[str, Any]]) -> NovaEventsClient:
    mocker.get(KEYSTONE, json={"version": {"id": "v3.14", "links": [{"rel": "self", "href": KEYSTONE}]}})
    mocker.post(f"{KEYSTONE}/auth/tokens", **token())
    auth = Password(
        auth_url=KEYSTONE, username="u", password="p", project_name="service",
        user_domain_id="default", project_domain_id="default",
    )  # fmt: skip
    adapter = Adapter(Session(auth=auth), endpoint_override=BASE, connect_retries=0, status_code_retries=0)
    return NovaEventsClient(RestClient(adapter, timeout=5, once_more=False))


def token() -> dict[str, Any]:
    return {
        "status_code": 201,
        "headers": {"X-Subject-Token": "t"},
        "json": {
            "token": {
                "expires_at": "2999-01-01T00:00:00.000000Z", "issued_at": "2026-01-01T00:00:00.000000Z",
                "methods": ["password"], "user": {"id": "u", "name": "u", "domain": {"id": "d", "name": "d"}},
            }
        },
    }  # fmt: skip


def test_a_401_is_tried_once_more_with_a_new_token(requests_mock: requests_mock.Mocker) -> None:
    endpoint = with_keystone(requests_mock, token)
    requests_mock.post(URL, [{"status_code": 401}, {"status_code": 200, "json": {"events": []}}])
    assert endpoint.post(KEYS[:1], "req-1") == Answer(status=200, body={"events": []})
    asked = [request.url for request in requests_mock.request_history]
    assert asked.count(URL) == 2
    assert asked.count(f"{KEYSTONE}/auth/tokens") == 2


def test_a_second_401_is_the_answer(requests_mock: requests_mock.Mocker) -> None:
    endpoint = with_keystone(requests_mock, token)
    requests_mock.post(URL, status_code=401)
    assert endpoint.post(KEYS[:1], "req-1").status == 401  # type: ignore[union-attr]
    assert [request.url for request in requests_mock.request_history].count(URL) == 2


def test_keystones_own_refusal_is_named_as_such(requests_mock: requests_mock.Mocker) -> None:
    endpoint = with_keystone(requests_mock, lambda: {"status_code": 401})
    assert endpoint.post(KEYS[:1], "req-1") == NoAnswer(Reason.UNAUTHORIZED)


def test_a_catalogue_without_the_endpoint_is_named_as_such(requests_mock: requests_mock.Mocker) -> None:
    endpoint = with_keystone(requests_mock, token)
    endpoint._rest._adapter.endpoint_override = None
    assert endpoint.post(KEYS[:1], "req-1") == NoAnswer(Reason.NO_ENDPOINT)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        (" 17 ", 17.0),
        ("86400", 600.0),
        ("99999999999999999999", None),
        ("-3", None),
        ("soon", None),
        ("Sun, 09 Sep 2001 01:47:10 GMT", 30.0),
        ("Sun, 09 Sep 2001 01:46:10 GMT", 0.0),
        ("Sun, 99 Sep 2001 01:46:10 GMT", None),
        ("٣", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, CLOCK) == seconds


class Picky:
    """An endpoint that answers a whole request badly when it holds what it does not like."""

    def __init__(self, dislikes: set[ExtendKey], status: int = 400, largest: int = 1000) -> None:
        self.dislikes = dislikes
        self.status = status
        self.largest = largest
        self.taken: list[ExtendKey] = []
        self.requests = 0

    def post(self, events: Sequence[ExtendKey], request_id: str, traces: object = None) -> Answer:
        self.requests += 1
        if len(events) > self.largest:
            return Answer(status=413)
        if self.dislikes & set(events):
            return Answer(status=self.status)
        self.taken += events
        rows = [{"server_uuid": key.server_id, "tag": key.volume_id, "code": 200} for key in events]
        return Answer(status=200, body=json.loads(json.dumps({"events": rows})))


def settled(endpoint: Any, keys: list[ExtendKey]) -> dict[ExtendKey, Reason]:
    verdicts: dict[ExtendKey, Reason] = {}
    for judgement in EndpointClient(endpoint).deliver(keys, "req-1"):
        if isinstance(judgement, Settle):
            verdicts.update({key: verdict.reason for key, verdict in judgement.verdicts.items()})
    return verdicts


@given(st.sets(st.sampled_from(KEYS)), st.sampled_from([400, 500]))
def test_a_refused_request_is_split_until_only_the_bad_events_stand_alone(bad: set[ExtendKey], status: int) -> None:
    endpoint = Picky(bad, status)
    verdicts = settled(endpoint, KEYS)
    refused = Reason.REQUEST_BAD if status == 400 else Reason.REQUEST_FAILED
    assert verdicts == {key: refused if key in bad else Reason.DELIVERED for key in KEYS}
    assert sorted(endpoint.taken) == sorted(set(KEYS) - bad)
    assert endpoint.requests <= 1 + 2 * len(bad) * 5  # 5: halvings of 32


@given(st.integers(1, 40))
def test_a_request_too_large_is_halved_until_it_fits(largest: int) -> None:
    endpoint = Picky(set(), largest=largest)
    assert set(settled(endpoint, KEYS)) == set(KEYS)
    assert endpoint.taken == KEYS


class Leaving:
    """Refuses the whole, takes a half, then goes away."""

    def __init__(self) -> None:
        self.answers: list[Any] = [Answer(status=500), None, NoAnswer(Reason.UNREACHABLE)]

    def post(self, events: Sequence[ExtendKey], request_id: str, traces: object = None) -> Answer | NoAnswer:
        answer = self.answers.pop(0)
        return Picky(set()).post(events, request_id) if answer is None else answer


def test_what_was_taken_before_the_endpoint_went_away_stays_taken() -> None:
    split, half, hold = EndpointClient(Leaving()).deliver(KEYS[:4], "req-1")
    assert isinstance(split, Split)
    assert isinstance(half, Settle)
    assert set(half.verdicts) == set(KEYS[:2])
    assert hold == Hold(Reason.UNREACHABLE)


def test_nothing_is_sent_for_no_events() -> None:
    assert list(EndpointClient(Picky(set())).deliver([], "req-1")) == []


class Forgetful:
    """Knows a server now and then; `codes` one after the other, for every event of a request."""

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)

    def post(self, events: Sequence[ExtendKey], request_id: str, traces: object = None) -> Answer:
        code = self.codes.pop(0)
        rows = [{"server_uuid": key.server_id, "tag": key.volume_id, "code": code} for key in events]
        return Answer(status=207, body={"events": rows})


def test_many_unknown_servers_are_gone_where_the_endpoint_knew_one_lately_and_hidden_where_it_did_not() -> None:
    now = [0.0]
    client = EndpointClient(Forgetful(404, 200, 404, 404), clock=lambda: now[0])
    assert list(client.deliver(KEYS[:10], "req-1")) == [Hold(Reason.ALL_HIDDEN)]
    assert isinstance(next(client.deliver(KEYS[:1], "req-2")), Settle)
    now[0] = 1799.0
    (judgement,) = client.deliver(KEYS[:10], "req-3")
    assert isinstance(judgement, Settle)
    assert {verdict.reason for verdict in judgement.verdicts.values()} == {Reason.EVENT_UNKNOWN_SERVER}
    now[0] = 1801.0
    assert list(client.deliver(KEYS[:10], "req-4")) == [Hold(Reason.ALL_HIDDEN)]
