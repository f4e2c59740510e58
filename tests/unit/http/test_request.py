# SPDX-License-Identifier: Apache-2.0
"""Where a request ends, however its bytes are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.http.request import RequestBuffer, RequestLimits

LIMITS = RequestLimits(line=150, head=200, body=100, framing=300, swallow=400)
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n3\r\n\r\n\r\r\n0\r\n\r\n"
TRAILERS = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\nC: d\r\n\r\n"


def post(length: int, sent: int | None = None, more: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\nContent-Length: %d\r\n%s\r\n" % (length, more) + b"x" * (
        length if sent is None else sent
    )


def decoded(raw: bytes) -> bytes:
    """The request as a worker gets it: chunks are bytes of the body."""
    if b"chunked" not in raw:
        return raw
    head, end, _ = raw.partition(b"\r\n\r\n")
    return head + end + (b"hello\r\n\r" if raw == CHUNKED else b"")


def fed(*pieces: bytes) -> tuple[RequestBuffer, list[bool]]:
    intake = RequestBuffer(LIMITS)
    return intake, [intake.feed(piece) for piece in pieces]


@pytest.mark.parametrize("raw", [GET, POST, CHUNKED, TRAILERS, b"\r\n" + POST, post(100)])
@given(st.data())
def test_it_is_whole_with_its_last_byte_and_not_before(raw: bytes, data: st.DataObject) -> None:
    """However it is cut."""
    cuts = sorted(data.draw(st.sets(st.integers(1, len(raw) - 1), max_size=8)))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    intake, whole = fed(*pieces)
    assert whole == [False] * (len(pieces) - 1) + [True]
    assert intake.take() == decoded(raw)
    assert not intake.unread
    assert not intake.broken


@pytest.mark.parametrize("raw", [GET, POST, CHUNKED, TRAILERS])
def test_what_comes_behind_is_no_second_request(raw: bytes) -> None:
    """It is left out, and the connection has to end."""
    intake, whole = fed(raw + b"GET /smuggled HTTP/1.1\r\n\r\n")
    assert whole == [True]
    assert (intake.take(), intake.unread) == (decoded(raw), True)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00\x01\x02\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"\n",
        b"G" * 300,
        b"GET / HTTP/1.1\r\nBig: " + b"x" * 300,
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 300,
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n" + b"x" * 400,
    ],
)
def test_what_can_never_be_whole_is_handed_over_to_be_refused(raw: bytes) -> None:
    """At once, and no more of it is kept than the limits."""
    intake, whole = fed(raw)
    assert (whole, intake.unread) == ([True], True)
    assert len(intake.take()) <= max(len(raw), LIMITS.head + 1)


@pytest.mark.parametrize("text", [b"-1", b"x", b"", b"1e3", b"5, 5", b"9" * 30])
def test_a_length_that_is_none_counts_as_no_body(text: bytes) -> None:
    """cheroot refuses it; what follows is not read."""
    intake, whole = fed(b"POST / HTTP/1.1\r\nContent-Length: " + text + b"\r\n\r\nhello")
    assert (whole, intake.unread) == ([True], True)


def test_a_body_above_the_limit_is_read_away_and_not_kept() -> None:
    """Then its sender hears the refusal."""
    head = post(300, 0)
    intake, whole = fed(head + b"x" * 50, b"x" * 249, b"x")
    assert whole == [False, False, True]
    assert (intake.take(), intake.unread) == (head, False)


@pytest.mark.parametrize("raw", [post(401, 5), post(10**17, 0), post(300, 0, b"Expect: 100-continue\r\n")])
def test_a_body_that_is_not_wanted_is_not_waited_for(raw: bytes) -> None:
    """Far too large, or not sent yet."""
    intake, whole = fed(raw)
    assert (whole, intake.unread) == ([True], True)
    assert intake.take() == raw[: raw.index(b"\r\n\r\n") + 4]


def test_who_asks_before_sending_is_told_once_to_go_on() -> None:
    """curl does, with large bodies."""
    intake, whole = fed(b"POST / HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n")
    assert whole == [False]
    assert [intake.wants_continue(), intake.wants_continue()] == [True, False]
    assert intake.feed(b"ok")


def test_when_the_sender_ends_early_what_came_is_the_request() -> None:
    """The refusal is worded where requests are read."""
    intake, _ = fed(POST[:-1])
    intake.give_up()
    assert (intake.take(), intake.unread) == (POST[:-1], True)


@given(st.lists(st.binary(max_size=80), max_size=30))
def test_whatever_comes_no_more_is_kept_than_the_limits(pieces: list[bytes]) -> None:
    intake = RequestBuffer(LIMITS)
    for piece in pieces:
        if intake.feed(piece):
            break
    assert intake.size <= LIMITS.head + LIMITS.body + 80 + 4


def test_a_request_line_above_its_limit_is_not_waited_for() -> None:
    """Nor kept: the refusal is a 414, whatever comes."""
    _, whole = fed(b"GET /" + b"x" * (LIMITS.line - 14) + b" HTTP/1.1\r\n", b"\r\n")
    assert whole == [False, True]
    intake, whole = fed(b"GET /" + b"x" * 300)
    assert whole == [True]
    assert len(intake.take()) == LIMITS.line + 2


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"GET /healthcheck HTTP/1.1\r\n\r\n", b"/healthcheck"),
        (b"HEAD /healthcheck?x=y HTTP/1.1\r\n\r\n", b"/healthcheck"),
        (b"GET /healthcheck/more HTTP/1.1\r\n\r\n", b"/healthcheck/more"),
        (b"GET http://x/healthcheck HTTP/1.1\r\n\r\n", b""),
        (b"get /healthcheck HTTP/1.1\r\n\r\n", b""),
        (b"\r\n\r\n", b""),
    ],
)
def test_the_path_is_known_before_a_worker_is(raw: bytes, path: bytes) -> None:
    intake, _ = fed(raw)
    assert intake.path == path
