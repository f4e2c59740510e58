# SPDX-License-Identifier: Apache-2.0
"""Whatever is sent, the answer is JSON in a shape Nova has, never a 500, and nothing unasked is accepted."""

import json
import logging
import re

import pytest
from falcon import testing
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bridge.api.request import MAX_BODY
from tests.unit.api.fakes import ON_HOST, PATH, VOLUME, Api, event
from tests.unit.api.test_schema import BODIES

GOOD = json.dumps({"events": [event()]}).encode()
V251 = {"OpenStack-API-Version": "compute 2.51", "Content-Type": "application/json"}
FAULTS = {"badRequest", "badMediaType", "computeFault", "overLimit", "itemNotFound"}
SLASHES = re.compile("//+")  # are one, as in front of Nova
LATIN = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=60)


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """A good body with something done to it."""
    body = bytearray(GOOD)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(body) - 1)) if body else 0
        body[at : at + draw(st.integers(0, 6))] = draw(st.binary(max_size=6))
    return bytes(body)


def assert_answered(answer: testing.Result) -> None:
    """A status of ours, a JSON body of ours."""
    assert answer.status_code in {200, 207, 400, 404, 406, 413, 415}
    body = answer.json
    if answer.status_code in {200, 207}:
        assert all(one["code"] in {200, 400, 404, 422} for one in body["events"])
    elif "title" not in body:
        ((name, fault),) = body.items()
        assert name in FAULTS
        assert fault["code"] == answer.status_code


@given(st.one_of(broken(), st.binary(max_size=200), BODIES.map(lambda body: json.dumps(body).encode())))
@example(b'{"events": [{"name": "volume-extended", "tag": "\xff"}]}')
@example(GOOD.decode().encode("utf-16"))
@example(b"\xef\xbb\xbf" + GOOD)
@example(b'{"events": ' + b"[" * 100_000)
@example(b'{"events": [' + b"9" * 5000 + b"]}")
@example(b'{"events": [{"name": "volume-extended", "server_uuid": "\\ud800", "tag": "\\udfff"}]}')
@example(b'{"events": 1e999}')
@example(b"\x00" * 100)
def test_any_body_is_answered(body: bytes) -> None:
    """Broken, binary, deep, huge numbers, half characters."""
    api = Api()
    answer = api.client.simulate_post(PATH, body=body, headers=V251)
    assert_answered(answer)
    if answer.status_code not in {200, 207}:
        assert api.journal.accepted == []


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "OpenStack-API-Version",
                "X-OpenStack-Nova-API-Version",
                "X-OpenStack-Request-ID",
                "Content-Type",
                "Accept",
                "Host",
                "X-Forwarded-Proto",
                "Forwarded",
                "X-Auth-Token",
                "Accept-Encoding",
            ]
        ),
        LATIN,
    )
)
def test_any_header_is_answered(headers: dict[str, str]) -> None:
    """None of them reaches an error of ours."""
    assert_answered(Api().client.simulate_post(PATH, body=GOOD, headers=headers))


@given(LATIN.map(lambda text: "/" + text), st.sampled_from(["GET", "POST", "PUT", "DELETE"]))
@example("/v2.1//os-server-external-events", "POST")
@example("/v2.1/../os-server-external-events", "POST")
@example("/v2.1/%00/os-server-external-events", "POST")
@hypothesis_settings(suppress_health_check=[HealthCheck.filter_too_much])
def test_any_path_is_answered(path: str, method: str) -> None:
    """Only the one path takes events."""
    api = Api()
    answer = api.client.simulate_request(method, path.partition("?")[0], body=GOOD, headers=V251)
    assert answer.status_code in {200, 300, 404, 400}
    if SLASHES.sub("/", path) != PATH:
        assert api.journal.accepted == []


@pytest.mark.parametrize(
    ("length", "status"), [("-1", 400), ("x", 400), ("9" * 40, 413), (str(MAX_BODY + 1), 413), ("", 400)]
)
def test_a_length_that_lies_is_refused(length: str, status: int) -> None:
    """Before anything is read."""
    environ = testing.create_environ(method="POST", path=PATH, body=GOOD, headers=V251)
    environ["CONTENT_LENGTH"] = length
    seen: list[str] = []
    body = b"".join(Api().app(environ, lambda line, *_: seen.append(line)))
    assert seen[0].startswith(str(status))
    assert json.loads(body)


def test_the_largest_body_is_taken_and_one_byte_more_is_not() -> None:
    """112 KiB, as in front of Nova."""
    padded = GOOD + b" " * (MAX_BODY - len(GOOD))
    assert Api().client.simulate_post(PATH, body=padded, headers=V251).status_code == 200
    assert Api().client.simulate_post(PATH, body=padded + b" ", headers=V251).status_code == 413


@pytest.mark.parametrize(
    "body", [GOOD.decode().encode("utf-16"), GOOD.decode().encode("utf-32"), b"\xef\xbb\xbf" + GOOD]
)
def test_json_is_utf_8(body: bytes) -> None:
    """As Nova reads it: without a byte order mark, no other encoding."""
    answer = Api().client.simulate_post(PATH, body=body, headers=V251)
    assert (answer.status_code, answer.json["badRequest"]["message"]) == (400, "Malformed request body")


@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 413), (5000, 413)])
def test_a_chunked_body_has_the_same_limit(more: int, status: int) -> None:
    """It has no length to go by; no more than the limit is read."""
    body = GOOD + b" " * (MAX_BODY - len(GOOD) + more)
    environ = testing.create_environ(method="POST", path=PATH, body=body, headers=V251)
    del environ["CONTENT_LENGTH"]
    environ["wsgi.input_terminated"] = True
    seen: list[str] = []
    b"".join(Api().app(environ, lambda line, *_: seen.append(line)))
    assert seen[0].startswith(str(status))
    assert environ["wsgi.input"].tell() <= MAX_BODY + 1


def test_a_refusal_that_quotes_the_caller_is_still_valid_json(caplog: pytest.LogCaptureFixture) -> None:
    """Quotes, line breaks and control characters of the caller are quoted, and stay out of the log."""
    api = Api()
    planted = "\x1b[31m\r\nFAKE LINE"
    with caplog.at_level(logging.DEBUG):
        answer = api.post(event(name=planted), event(tag=f"{VOLUME}\r\n{ON_HOST}"))
    assert answer.status_code == 400
    assert f"Value: {planted}." in answer.json["badRequest"]["message"]
    assert "FAKE LINE" not in caplog.text
