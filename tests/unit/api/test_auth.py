# SPDX-License-Identifier: Apache-2.0
"""Without authentication: callers on this machine come in, pages in their browsers do not."""

import socket

import falcon
import pytest
from falcon import testing

from bridge.api.auth import NoAuth
from bridge.api.faults import FaultError

JSON = {"Content-Type": "application/json", "Host": "127.0.0.1:8786"}


def outcome(headers: dict[str, str], method: str = "POST", *, loopback_only: bool = True) -> int:
    environ = testing.create_environ(method=method, headers=headers)
    if "Host" not in headers:
        del environ["HTTP_HOST"]
    try:
        NoAuth(loopback_only=loopback_only).authenticate(falcon.Request(environ))
    except FaultError as ex:
        return ex.status
    return 200


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.0.0.1:8786", "127.9.9.9", "[::1]:8786", "localhost", "LOCALHOST:8786", "localhost.",
        socket.gethostname(), None,
    ],
)  # fmt: skip
def test_callers_on_this_machine_come_in(host: str | None) -> None:
    headers = {"Content-Type": "application/json", **({"Host": host} if host else {})}
    assert outcome(headers) == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "localhost.evil.example", "127.0.0.1.nip.example", "192.0.2.1", "0.0.0.0", "[::]", "",
        "evil.example:8786", "2130706433", "127.1", "[fe80::1]", "localhost@evil.example",
    ],
)  # fmt: skip
def test_a_name_that_was_rebound_to_this_machine_does_not(host: str) -> None:
    """Nor do addresses that are none of loopback, whatever a browser makes of them."""
    assert outcome({**JSON, "Host": host}) == 403
    assert outcome({**JSON, "Host": host}, loopback_only=False) == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Origin", "http://evil.example"), ("Origin", "null"), ("Origin", "http://127.0.0.1:8786"), ("Origin", ""),
        ("Referer", "http://evil.example/"), ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Site", "same-origin"),
        ("Sec-Fetch-Mode", "no-cors"), ("Cookie", "a=b"),
    ],
)  # fmt: skip
def test_a_request_with_headers_of_a_browser_does_not(name: str, value: str) -> None:
    """By whatever name it came."""
    assert outcome({**JSON, name: value}) == 403
    assert outcome({**JSON, name: value}, loopback_only=False) == 403
    assert outcome({**JSON, name: value}, "GET") == 403


@pytest.mark.parametrize(
    "kind",
    [
        None, "", "text/plain", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x", "application/jsonp", "application/json\t",
    ],
)  # fmt: skip
def test_a_body_that_a_page_may_send_unasked_is_415(kind: str | None) -> None:
    """A form, a beacon, a Blob without a type. With credentials, text/plain and no type are taken, as by Nova."""
    headers = {"Host": "127.0.0.1", **({"Content-Type": kind} if kind is not None else {})}
    assert outcome(headers) == (200 if kind == "application/json\t" else 415)


@pytest.mark.parametrize(
    "kind", ["application/json", "application/json; charset=UTF-8", "application/vnd.openstack.compute+json"]
)
def test_a_body_with_a_json_content_type_is_accepted(kind: str) -> None:
    assert outcome({"Host": "127.0.0.1", "Content-Type": kind}) == 200
