# SPDX-License-Identifier: Apache-2.0
"""Chunked bodies: decoded once, while they come; broken, endless or costly ones are broken off."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.http.request import RequestBuffer, RequestLimits

HEAD = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
LIMITS = RequestLimits()


def chunked(parts: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts if part) + b"0\r\n\r\n"


def read(sent: bytes, *, at_a_time: int = 65536) -> RequestBuffer:
    """The request after its last byte, or after its sender has ended."""
    buffer = RequestBuffer(LIMITS)
    whole = buffer.feed(HEAD)
    for at in range(0, len(sent), at_a_time):
        if whole:
            break
        whole = buffer.feed(sent[at : at + at_a_time])
    if not whole:
        buffer.give_up()
    return buffer


def body(buffer: RequestBuffer) -> bytes:
    return buffer.take().partition(b"\r\n\r\n")[2]


@given(st.lists(st.binary(max_size=40), max_size=6), st.integers(1, 50))
def test_a_body_is_decoded_however_it_comes(parts: list[bytes], at_a_time: int) -> None:
    """In pieces of any size; what follows on the connection is left out."""
    for more in (b"", b"GET / HTTP/1.1\r\n"):
        buffer = read(chunked(parts) + more, at_a_time=at_a_time)
        assert body(buffer) == b"".join(parts)
        assert not buffer.broken
        assert buffer.unread or not more or at_a_time < 50


def test_extensions_and_trailers_are_read_over() -> None:
    assert body(read(b"2;a=b\r\nhi\r\n0;x\r\nTrailer: y\r\n\r\n")) == b"hi"


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\r\n",
        b"zz\r\nhi\r\n",
        b"-1\r\nhi\r\n",
        b"0x2\r\nhi\r\n",
        b"+2\r\nhi\r\n",
        b"2_0\r\nhi",
        b"2\nhi\n0\n\n",
        b"FFFFFFFFFFFFFFFF\r\nhi",
        b"00000000000000000002\r\nhi\r\n0\r\n\r\n",
        b"2;" + b"x" * 9000 + b"\r\nhi\r\n0\r\n\r\n",
        b"5\r\nhi\r\n0\r\n\r\n",
        b"2\r\nhi",
        b"1\r\nhi\r\n0\r\n\r\n",
        b"2\r\nhi\r\n",
        b"2\r\nhi\r\n0\r\n",
        b"2\r\nhi\r\n0\r\nX: y\n\n",
        b"2\r\nhi\r\n0\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
        b"1\r\nx\r\n" * 50_000 + b"0\r\n\r\n",
        (b"1;" + b"x" * 200 + b"\r\ny\r\n") * 500 + b"0\r\n\r\n",
    ],
)
def test_a_broken_body_is_broken_off(sent: bytes) -> None:
    """As soon as that is certain, and the connection ends."""
    buffer = read(sent)
    assert buffer.broken
    assert buffer.unread
    assert buffer.size <= LIMITS.head + LIMITS.framing + 65536


def test_a_body_above_the_limit_is_not_kept() -> None:
    """One byte more than the limit is enough for its refusal."""
    buffer = read(b"FFFFF\r\n" + b"x" * 0xFFFFF + b"\r\n0\r\n\r\n")
    assert not buffer.broken
    assert buffer.unread
    assert LIMITS.body < len(body(buffer)) <= LIMITS.body + 65536


@given(st.binary(max_size=200))
def test_any_bytes_end_in_a_body_or_are_broken_off(sent: bytes) -> None:
    buffer = read(sent)
    assert buffer.broken or len(body(buffer)) <= len(sent)
