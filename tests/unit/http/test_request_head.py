# SPDX-License-Identifier: Apache-2.0
"""What the built-in server takes for a request, over a real socket."""

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from bridge.http.request import RequestLimits
from bridge.http.server import HttpServer

SEEN: list[dict[str, object]] = []


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Reads nothing of the body at /unread, everything elsewhere."""
    SEEN.append(environ)
    if environ["PATH_INFO"] != "/unread":
        environ["wsgi.input"].read(100)
    start_response("200 OK", [("Content-Length", "2"), ("Content-Type", "text/plain")])
    return [b"ok"]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = HttpServer(
        "test", app, host="127.0.0.1", port=0, threads=2, option="x", server_name="x", grace=1, timeout=5
    )
    server.start()
    yield server.port
    server.stop()
    assert server.join(120)


def send(port: int, data: bytes) -> list[tuple[int, bytes]]:
    """Status and body of each answer on one connection, until the server closes it or has no more to say."""
    SEEN.clear()
    got = b""
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while chunk := connection.recv(65536):
            got += chunk
    heads = re.split(rb"(?=HTTP/1\.1 \d{3})", got)[1:]
    return [(int(head[9:12]), head.partition(b"\r\n\r\n")[2]) for head in heads]


def get(path: str = "/", headers: str = "", body: str = "", method: str = "POST", version: str = "1.1") -> bytes:
    return f"{method} {path} HTTP/{version}\r\nHost: x\r\n{headers}\r\n{body}".encode("latin-1")


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ("Content-Length: 2\r\nContent-Length: 2\r\n", "More than one Content-Length header."),
        ("Host: y\r\n", "More than one Host header."),
        ("Transfer-Encoding: chunked\r\nContent-Length: 2\r\n", "exclude each other"),
        ("Content-Length: +2\r\n", "Malformed Content-Length"),
        ("Content-Length: 1_0\r\n", "Malformed Content-Length"),
        ("Content-Length: -2\r\n", "Malformed Content-Length"),
        ("Content-Length : 2\r\n", "Malformed header."),
        (" Folded: x\r\n", "Malformed header."),
        ("X: a\r\n b\r\n", "Malformed header."),
        ("X: a\rY: b\r\n", "Malformed header."),
        ("X: a\x00b\r\n", "Malformed header."),
        ("X\r\n", "Malformed header."),
        ("X: a\n", "Header lines end with CRLF."),
        ("X: y\r\n" * 101, "Too many headers."),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused_in_json_and_ends_the_connection(
    port: int, headers: str, words: str
) -> None:
    """The bytes behind it are no second request."""
    ((status, body),) = send(port, get(headers=headers, body="ok") + get())
    assert status == 400
    assert words in json.loads(body)["message"]
    assert SEEN == []


def test_chunks_are_for_http_1_1(port: int) -> None:
    ((status, _),) = send(port, get(headers="Transfer-Encoding: chunked\r\n", version="1.0") + get())
    assert (status, SEEN) == (400, [])


def test_a_repeated_header_is_joined_and_one_with_an_underscore_dropped(port: int) -> None:
    send(port, get(headers="X-Auth-Token: a\r\nx-auth-token: b\r\nX_Auth_Token: c\r\n"))
    assert SEEN[0]["HTTP_X_AUTH_TOKEN"] == "a, b"


def test_slashes_at_the_beginning_are_one(port: int) -> None:
    """An endpoint configured with a slash at its end; otherwise the first segment would be a host name."""
    assert [status for status, _ in send(port, get("//v2.1/x"))] == [200]
    assert SEEN[0]["PATH_INFO"] == "/v2.1/x"


def test_an_unread_body_is_no_request(port: int) -> None:
    """Nor is anything else that comes behind a request before its answer: the connection ends."""
    inner = get("/smuggled", "Connection: close\r\n").decode()
    assert len(send(port, get("/unread", f"Content-Length: {len(inner)}\r\n", inner) + get("/second"))) == 1
    assert [environ["PATH_INFO"] for environ in SEEN] == ["/unread"]
    chunks = f"{len(inner):x}\r\n{inner}\r\n0\r\n\r\n"
    assert len(send(port, get("/unread", "Transfer-Encoding: chunked\r\n", chunks) + get("/second"))) == 1
    assert [environ["PATH_INFO"] for environ in SEEN] == ["/unread"]


def test_a_body_nobody_could_want_ends_the_connection_after_the_answer(port: int) -> None:
    """The answer arrives all the same: what still comes is read away for a while."""
    body = "x" * (RequestLimits().swallow + 10)
    ((status, _),) = send(port, get("/unread", f"Content-Length: {len(body)}\r\n", body))
    assert status == 200


@pytest.mark.parametrize(
    "line", [b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"G" * 70_000, b"GET /#x HTTP/1.1\r\n\r\n"]
)
def test_other_refusals_are_json_too(port: int, line: bytes) -> None:
    ((status, body),) = send(port, line)
    assert 400 <= status < 600
    assert json.loads(body)["code"].startswith(str(status))
