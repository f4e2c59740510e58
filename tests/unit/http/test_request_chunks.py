# SPDX-License-Identifier: Apache-2.0
"""Chunked bodies: whatever was chunked is read back; whatever is broken is a ValueError, never a large read."""

import contextlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.http.request import ChunkedBody


def chunked(parts: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts if part) + b"0\r\n\r\n"


@given(st.lists(st.binary(max_size=40), max_size=6), st.integers(1, 50))
def test_what_was_chunked_is_read_back(parts: list[bytes], size: int) -> None:
    """By pieces of any size, and whole; what follows on the connection is left alone."""
    whole = b"".join(parts)
    assert ChunkedBody(io.BytesIO(chunked(parts))).read() == whole
    connection = io.BytesIO(chunked(parts) + b"GET / HTTP/1.1\r\n")
    body, got = ChunkedBody(connection), b""
    while piece := body.read(size):
        assert len(piece) <= size
        got += piece
    assert got == whole
    assert connection.read() == b"GET / HTTP/1.1\r\n"
    assert body.read() == b""


def test_extensions_and_trailers_are_read_over() -> None:
    assert ChunkedBody(io.BytesIO(b"2;a=b\r\nhi\r\n0;x\r\nTrailer: y\r\n\r\n")).read() == b"hi"


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
        b"2;" + b"x" * 9000 + b"\r\nhi\r\n0\r\n\r\n",
        b"5\r\nhi\r\n0\r\n\r\n",
        b"2\r\nhi",
        b"1\r\nhi\r\n0\r\n\r\n",
        b"2\r\nhi\r\n",
        b"2\r\nhi\r\n0\r\n",
        b"2\r\nhi\r\n0\r\nX: y\n\n",
        b"2\r\nhi\r\n0\r\n" + b"X: y\r\n" * 100 + b"\r\n",
    ],
)
def test_what_is_broken_is_refused(sent: bytes) -> None:
    with pytest.raises(ValueError, match=r"chunk|broke off"):
        ChunkedBody(io.BytesIO(sent)).read()


@given(st.binary(max_size=200))
def test_any_bytes_end_in_a_body_or_a_value_error(sent: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert len(ChunkedBody(io.BytesIO(sent)).read()) <= len(sent)
