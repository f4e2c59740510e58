# SPDX-License-Identifier: Apache-2.0
"""One total deadline for each outgoing read, whatever the other side does; errors name what to set."""

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest
import requests_mock
from keystoneauth1.adapter import Adapter
from keystoneauth1.identity.v3 import Password
from keystoneauth1.noauth import NoAuth
from keystoneauth1.session import Session

from bridge.core.extend import ExtendKey, new_id
from bridge.core.reasons import Reason
from bridge.runtime.rest import Answer, NoAnswer, NovaEventsClient, RestClient, event_codes, event_reason
from tests.lab.slow_server import Slowness, SlowServer

LIMIT: Final = 0.5  # seconds of the total deadline
FAR_BEYOND: Final = 20.0  # seconds: no machine is so slow, and every server below would hold for longer
DRIPS: Final = [slow for slow in Slowness if slow is not Slowness.ENDLESS]


def client(url: str, **more: Any) -> RestClient:
    session = Session(auth=NoAuth(), timeout=60)
    return RestClient(Adapter(session, endpoint_override=url), timeout=LIMIT, group="cinder", **more)


def with_keystone(auth_url: str, **more: Any) -> RestClient:
    auth = Password(
        auth_url=auth_url, username="u", password="s3cret", project_name="service", user_domain_id="default",
        project_domain_id="default",
    )  # fmt: skip
    adapter = Adapter(Session(auth=auth), service_type="block-storage", interface=["internal", "public"], **more)
    return RestClient(adapter, timeout=LIMIT, group="cinder")


@pytest.fixture(params=DRIPS)
def slow(request: pytest.FixtureRequest) -> Iterator[SlowServer]:
    with SlowServer(request.param) as server:
        yield server


def test_a_get_ends_at_its_deadline_wherever_the_answer_drips(slow: SlowServer) -> None:
    began = time.monotonic()
    assert client(slow.url).get("/volumes/x", {}) == NoAnswer(Reason.TIMED_OUT)
    assert time.monotonic() - began < FAR_BEYOND
    assert slow.requests == 1


def test_a_post_of_events_ends_at_its_deadline_wherever_the_answer_drips(slow: SlowServer) -> None:
    began = time.monotonic()
    events = [ExtendKey(new_id(), new_id())]
    assert NovaEventsClient(client(slow.url)).post(events, "req-1") == NoAnswer(Reason.TIMED_OUT)
    assert time.monotonic() - began < FAR_BEYOND


def test_a_keystone_that_drips_its_token_is_within_the_same_deadline(slow: SlowServer) -> None:
    began = time.monotonic()
    answer = with_keystone(slow.url).get("/volumes/x", {})
    assert isinstance(answer, NoAnswer)
    assert time.monotonic() - began < FAR_BEYOND


def test_an_endless_answer_is_cut_off_and_said_to_be_too_large() -> None:
    with SlowServer(Slowness.ENDLESS) as server:
        answer = client(server.url, largest=100_000).get("/", {})
    assert answer == Answer(status=200)
    assert isinstance(answer, Answer)
    assert answer.too_large


def test_a_dead_kept_connection_is_made_anew_once() -> None:
    """As uWSGI does: it closes a connection it had kept open, without a word."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for _ in range(2):
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    reader = client(f"http://127.0.0.1:{listening.getsockname()[1]}")
    assert [reader.get("/", {}), reader.get("/", {})] == [Answer(status=200, body={})] * 2
    thread.join(FAR_BEYOND)
    listening.close()


def test_a_refused_connection_is_named_by_its_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    answer = client(f"http://127.0.0.1:{port}/v3").get("/volumes/x", {})
    assert answer == NoAnswer(Reason.UNREACHABLE)
    assert isinstance(answer, NoAnswer)
    assert f"127.0.0.1:{port}" in answer.detail
    assert "refused" in answer.detail


KEYSTONE: Final = "http://keystone.test/v3"


def keystone_answers(mocker: requests_mock.Mocker, **token: Any) -> None:
    mocker.get(KEYSTONE, json={"version": {"id": "v3.14", "links": [{"rel": "self", "href": KEYSTONE}]}})
    mocker.post(f"{KEYSTONE}/auth/tokens", **token)


def a_token(*catalogue: dict[str, Any]) -> dict[str, Any]:
    token = {
        "expires_at": "2999-01-01T00:00:00.000000Z", "issued_at": "2026-01-01T00:00:00.000000Z",
        "methods": ["password"], "user": {"id": "u", "name": "u", "domain": {"id": "d", "name": "d"}},
        "catalog": list(catalogue),
    }  # fmt: skip
    return {"status_code": 201, "headers": {"X-Subject-Token": "t"}, "json": {"token": token}}


def cinder(interface: str, region: str) -> dict[str, Any]:
    endpoint = {"interface": interface, "region": region, "region_id": region, "id": "e", "url": "http://c.test/v3"}
    return {"type": "volumev3", "name": "cinderv3", "id": "s", "endpoints": [endpoint]}


def words(answer: Answer | NoAnswer) -> tuple[Reason, str]:
    assert isinstance(answer, NoAnswer)
    return answer.reason, answer.detail


def test_a_wrong_password_is_said_with_what_to_check(requests_mock: requests_mock.Mocker) -> None:
    keystone_answers(requests_mock, status_code=401, json={"error": {"code": 401, "message": "no", "title": "U"}})
    reason, detail = words(with_keystone(KEYSTONE).get("/volumes/x", {}))
    assert reason is Reason.UNAUTHORIZED
    assert KEYSTONE in detail
    assert "username, password" in detail
    assert "[cinder]" in detail
    assert "s3cret" not in detail


@pytest.mark.parametrize(
    ("wanted", "catalogue", "said"),
    [
        ({"region_name": "Two"}, [cinder("public", "One")], ("region Two", "public in One", "region_name")),
        (
            {"interface": "admin"},
            [cinder("public", "One")],
            ("interface admin", "public in One", "valid_interfaces"),
        ),
        ({}, [], ("none of that type", "service_type")),
    ],
)
def test_an_endpoint_missing_in_the_catalogue_is_said_with_what_is_there(
    wanted: dict[str, str],
    catalogue: list[dict[str, Any]],
    said: tuple[str, ...],
    requests_mock: requests_mock.Mocker,
) -> None:
    keystone_answers(requests_mock, **a_token(*catalogue))
    reader = with_keystone(KEYSTONE)
    for name, value in wanted.items():
        setattr(reader._adapter, name, value)
    reason, detail = words(reader.get("/volumes/x", {}))
    assert reason is Reason.NO_ENDPOINT
    for word in said:
        assert word in detail


def test_codes_are_by_lower_case_ids_and_the_first_of_a_pair_counts() -> None:
    key = ExtendKey(new_id(), new_id())
    row = {"server_uuid": key.server_id.upper(), "tag": key.volume_id.upper()}
    body = {"events": [{**row, "code": 200}, {**row, "code": 404}, {"code": 200}, "x"]}
    assert event_codes(body) == {key: 200}
    assert event_codes({"events": None}) is None
    assert [event_reason(code) for code in (200, 422, 599, True, None)] == [
        Reason.DELIVERED, Reason.EVENT_NO_HOST, Reason.EVENT_OTHER_CODE, Reason.EVENT_NO_CODE, Reason.EVENT_NO_CODE,
    ]  # fmt: skip
