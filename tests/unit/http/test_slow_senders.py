# SPDX-License-Identifier: Apache-2.0
"""The built-in server among clients that are slow, greedy or silent: whoever sends at once is answered at once."""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from bridge.http.server import HttpServer

THREADS = 2
CONNECTIONS = 30


def echo(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """The body back; a body with a length above 100 is 413 unread, as in the API."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if length > 100:
        start_response("413 Request Entity Too Large", [("Content-Length", "3")])
        return [b"413"]
    stream = environ["wsgi.input"]
    body = stream.read() if environ.get("wsgi.input_terminated") else stream.read(length)
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


@contextlib.contextmanager
def serving(timeout: int) -> Iterator[HttpServer]:
    server = HttpServer(
        "test", echo, host="127.0.0.1", port=0, threads=THREADS, option="[test] port", server_name="test",
        grace=5, timeout=timeout, max_connections=CONNECTIONS,
    )  # fmt: skip
    server.start()
    try:
        yield server
    finally:
        server.stop()
        assert server.join(120)


@pytest.fixture(scope="module")
def server() -> Iterator[HttpServer]:
    with serving(30) as running:
        yield running


def connect(server: HttpServer, first: bytes = b"") -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=120)
    sock.sendall(first)
    return sock


def answer(sock: socket.socket) -> bytes:
    """Until the server closes."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(65536):
            data += piece
    return data


def good(server: HttpServer, body: bytes = b"hello") -> float:
    """Seconds a good request takes."""
    started = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    connection.request("POST", "/", body)
    assert connection.getresponse().read() == body
    connection.close()
    return time.monotonic() - started


HALF = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nhal"


@pytest.mark.parametrize(
    "begin",
    [b"", b"POST / HT", b"POST / HTTP/1.1\r\nHost: x\r\n", HALF],
    ids=["nothing", "line", "headers", "body"],
)
def test_slow_senders_more_than_there_are_threads_stop_nobody(server: HttpServer, begin: bytes) -> None:
    """Each sends a byte now and then; no thread waits for any of them."""
    slow = [connect(server, begin) for _ in range(THREADS * 5)]
    done = threading.Event()

    def trickle() -> None:
        while not done.wait(0.05):
            for sock in slow:
                with contextlib.suppress(OSError):
                    sock.send(b"x")

    thread = threading.Thread(target=trickle)
    if begin:
        thread.start()
    try:
        assert max(good(server) for _ in range(10)) < 5
    finally:
        done.set()
        if begin:
            thread.join()
        for sock in slow:
            sock.close()


def test_when_there_are_too_many_the_slowest_make_room(server: HttpServer) -> None:
    """Who sends at once is not among them."""
    slow = [connect(server, HALF) for _ in range(CONNECTIONS * 3)]
    try:
        assert max(good(server) for _ in range(5)) < 5
        slow[0].settimeout(10)
        assert answer(slow[0]) == b""
        assert len(server._server._open) <= CONNECTIONS + 1
    finally:
        for sock in slow:
            sock.close()


def test_a_request_has_to_come_in_time_however_busily_it_trickles() -> None:
    """408, and the connection ends."""
    with serving(1) as server:
        sock = connect(server, HALF)
        with contextlib.suppress(OSError):
            for _ in range(40):
                sock.send(b"x")
                time.sleep(0.05)
        assert b"408 Request Timeout" in answer(sock)


def test_a_silent_one_is_put_out_also_where_no_other_comes() -> None:
    with serving(1) as server:
        sock = connect(server, HALF)
        assert answer(sock).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("size", [101, 303_000, 1_515_000], ids=["kept", "read away", "not waited for"])
def test_a_refused_body_does_not_take_its_refusal_with_it(server: HttpServer, size: int) -> None:
    """The application's own 413 arrives, also while the body is still being sent."""
    sock = connect(server, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
    with contextlib.suppress(BrokenPipeError):
        for _ in range(size // 101):
            sock.sendall(b"x" * 101)
    assert b"413 Request Entity" in sock.recv(1000)
    good(server)


def test_a_chunked_body_is_read(server: HttpServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    connection.request("POST", "/", iter([b"he", b"llo"]), encode_chunked=True)
    assert connection.getresponse().read() == b"hello"


def test_who_expects_100_continue_gets_it_before_the_body(server: HttpServer) -> None:
    sock = connect(
        server,
        b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    )
    assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    sock.sendall(b"hello")
    assert answer(sock).endswith(b"\r\n\r\nhello")


def test_a_connection_is_kept_and_a_second_request_behind_the_first_is_not_read(server: HttpServer) -> None:
    """What was sent with the first cannot pose as a request."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    for body in (b"one", b"two"):
        connection.request("POST", "/", body)
        assert connection.getresponse().read() == body
    request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\none"
    said = answer(connect(server, request + request.replace(b"one", b"two")))
    assert said.endswith(b"one")
    assert said.count(b"HTTP/1.1") == 1
    assert b"Connection: close" in said


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/9.9\r\n\r\n", 505),
        (b"\x00\x01\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nBig: " + b"x" * 70_000 + b"\r\n\r\n", 413),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    ],
)
def test_the_servers_own_refusals_are_json(server: HttpServer, raw: bytes, status: int) -> None:
    """In the shape of Nova's web layer."""
    head, _, body = answer(connect(server, raw)).partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"Content-Type: application/json" in head
    assert json.loads(body)["code"].startswith(str(status))


def test_a_half_closed_client_is_answered(server: HttpServer) -> None:
    """It has said all it wants to."""
    sock = connect(server, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
    sock.shutdown(socket.SHUT_WR)
    assert answer(sock).endswith(b"hello")
