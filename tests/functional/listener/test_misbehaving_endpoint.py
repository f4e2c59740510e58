# SPDX-License-Identifier: Apache-2.0
"""One POST to a real HTTP server that misbehaves: always a value, in bounded time, never an exception."""

import json
from collections.abc import Sequence
from typing import Final

import pytest
from keystoneauth1.adapter import Adapter
from keystoneauth1.noauth import NoAuth
from keystoneauth1.session import Session

from bridge.core.extend import ExtendKey, new_id
from bridge.core.reasons import Reason
from bridge.runtime.rest import Answer, NoAnswer, NovaEventsClient, RestClient
from tests.lab.endpoint import Behaviour, Event, RecordingEndpoint, Reply, takes_all

pytestmark = pytest.mark.functional

TIMEOUT: Final = 1.0
KEY: Final = ExtendKey(new_id(), new_id())


def client(url: str) -> NovaEventsClient:
    session = Session(auth=NoAuth(), timeout=TIMEOUT)
    adapter = Adapter(session, endpoint_override=url, connect_retries=0, status_code_retries=0)
    return NovaEventsClient(RestClient(adapter, timeout=TIMEOUT, once_more=False))


def whole(events: Sequence[Event]) -> bytes:
    return takes_all(events).body


def padded(events: Sequence[Event], size: int) -> bytes:
    return whole(events) + b" " * size


BEHAVIOURS: dict[str, tuple[Behaviour, tuple[int, ...] | Reason]] = {
    "a connection closed in the middle of the body": (
        lambda events: Reply(body=whole(events)[:20], length=4000),
        Reason.UNREACHABLE,
    ),
    "JSON cut off, its length said right": (lambda events: Reply(body=whole(events)[:-5]), (200,)),
    "a web page": (lambda _: Reply(status=200, body=b"<html>welcome</html>"), (200,)),
    "no body at all": (lambda _: Reply(status=503), (503,)),
    "gzip that is none": (
        lambda events: Reply(body=whole(events), headers={"Content-Encoding": "gzip"}),
        Reason.UNREACHABLE,
    ),
    "more than anybody wants to read": (lambda events: Reply(body=padded(events, 6_000_000)), (200,)),
    "a redirect": (lambda _: Reply(status=302, headers={"Location": "http://127.0.0.1:1/"}), (302,)),
    "a body that trickles": (lambda events: Reply(body=padded(events, 4000), drip=0.3), Reason.TIMED_OUT),
}


@pytest.mark.parametrize(("behaviour", "expected"), BEHAVIOURS.values(), ids=BEHAVIOURS)
def test_every_misbehaviour_is_a_value_in_bounded_time(
    behaviour: Behaviour, expected: tuple[int, ...] | Reason, endpoint: RecordingEndpoint
) -> None:
    endpoint.behaviour = behaviour
    answer = client(endpoint.url).post([KEY], "req-1")
    if isinstance(expected, Reason):
        assert answer == NoAnswer(expected)
    else:
        assert answer == Answer(status=expected[0], body=None)


def test_an_answer_that_does_not_come_is_a_timeout(endpoint: RecordingEndpoint) -> None:
    endpoint.gate.clear()
    assert client(endpoint.url).post([KEY], "req-1") == NoAnswer(Reason.TIMED_OUT)


def test_a_port_nobody_listens_on_is_unreachable(endpoint: RecordingEndpoint) -> None:
    endpoint.close()
    assert client(endpoint.url).post([KEY], "req-1") == NoAnswer(Reason.UNREACHABLE)


def test_tls_where_there_is_none_is_unreachable(endpoint: RecordingEndpoint) -> None:
    assert client(endpoint.url.replace("http:", "https:")).post([KEY], "req-1") == NoAnswer(Reason.UNREACHABLE)


def test_a_good_answer_is_read_whole(endpoint: RecordingEndpoint) -> None:
    keys = [ExtendKey(new_id(), new_id()) for _ in range(700)]
    answer = client(endpoint.url).post(keys, "req-1")
    assert isinstance(answer, Answer)
    assert answer.body == json.loads(takes_all(endpoint.requests[0][1]).body)
    assert len(answer.body["events"]) == 700
