# SPDX-License-Identifier: Apache-2.0
"""The built-in server among clients that do not take their answers, and requests that keep its threads."""

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from bridge.http import server as server_module
from bridge.http.server import HttpServer
from tests.attack.clients import connect as connect_to
from tests.lab.waiting import until

THREADS = 2
BIG = 4_000_000
GET_BIG = b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n"


class App:
    """Answers /big with megabytes, /wait once it is told to, everything else at once."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.waiting = threading.Semaphore(0)
        self.go_on = threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        path = environ["PATH_INFO"]
        self.seen.append(path)
        if path == "/wait":
            self.waiting.release()
            self.go_on.wait(120)
        body = b"x" * BIG if path == "/big" else b"ok"
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]


@contextlib.contextmanager
def serving(app: App, timeout: int = 30) -> Iterator[HttpServer]:
    server = HttpServer(
        "test", app, host="127.0.0.1", port=0, threads=THREADS, option="[test] port", server_name="test",
        grace=1, timeout=timeout, max_connections=50, reserved=["/health"],
    )  # fmt: skip
    server.start()
    try:
        yield server
    finally:
        app.go_on.set()
        server.stop()
        assert server.join(120)


@pytest.fixture
def app() -> App:
    return App()


def get(server: HttpServer, path: str = "/", seconds: float = 20) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=seconds)
    connection.request("GET", path)
    try:
        return connection.getresponse().read()
    finally:
        connection.close()


def reader(server: HttpServer) -> socket.socket:
    """A client that has asked for megabytes, with buffers as on Ethernet."""
    sock = connect_to(server.port, small=True, seconds=20)
    sock.sendall(GET_BIG)
    return sock


def taken(sock: socket.socket) -> int:
    """Bytes until the server closes."""
    total = 0
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(65536):
            total += len(piece)
    return total


def test_clients_that_never_read_hold_no_thread(app: App) -> None:
    """More of them than threads; with an answer that no buffer of the kernel takes whole."""
    with serving(app) as server:
        readers = [reader(server) for _ in range(THREADS * 3)]
        until(lambda: app.seen.count("/big") == len(readers), "all are being answered")
        assert {get(server) for _ in range(10)} == {b"ok"}
        for sock in readers:
            sock.close()


def test_an_answer_is_taken_as_slowly_as_its_client_reads(app: App) -> None:
    """Whole, within the time for it; then the connection takes the next request."""
    with serving(app) as server:
        sock = reader(server)
        time.sleep(0.3)
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(100)
        left = BIG - len(head.partition(b"\r\n\r\n")[2])
        while left:
            left -= len(sock.recv(min(left, 65536)))
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert sock.recv(1000).startswith(b"HTTP/1.1 200")


def test_an_answer_has_to_be_taken_in_time_however_busily_it_is_read(app: App) -> None:
    """One deadline for the whole answer: a byte now and then does not move it."""
    with serving(app, timeout=1) as server:
        sock = reader(server)
        with contextlib.suppress(OSError):
            for _ in range(40):
                sock.recv(10)
                time.sleep(0.05)
        assert taken(sock) < BIG
        until(lambda: not server._server._open, "the connection has ended")


def test_when_too_much_is_held_the_slowest_reader_makes_room(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes in memory for slow clients are bounded together."""
    monkeypatch.setattr(server_module, "_HELD_BYTES", 2 * BIG)
    with serving(app) as server:
        first = reader(server)
        until(lambda: server._server._held > BIG // 2, "the first is being answered")
        others = [reader(server) for _ in range(4)]
        assert taken(first) < BIG
        assert server._server._held <= 2 * BIG
        assert get(server) == b"ok"
        for sock in others:
            sock.close()
        until(lambda: server._server._held == 0, "nothing is held for clients that have gone")


def test_a_reserved_path_is_answered_while_all_threads_wait(app: App) -> None:
    """They wait for a database, or for whatever the application waits for."""
    with serving(app) as server:
        waiting = [threading.Thread(target=get, args=(server, "/wait")) for _ in range(THREADS + 1)]
        for thread in waiting:
            thread.start()
        for _ in range(THREADS):
            assert app.waiting.acquire(timeout=120)
        assert get(server, "/health") == b"ok"
        assert "/" not in app.seen
        app.go_on.set()
        for thread in waiting:
            thread.join(120)


def test_a_request_whose_client_has_gone_is_not_worked_on(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time in the queue was longer than its client's patience."""
    monkeypatch.setattr("bridge.http.connection._PATIENCE", 0.2)
    with serving(app) as server:
        waiting = [threading.Thread(target=get, args=(server, "/wait")) for _ in range(THREADS)]
        for thread in waiting:
            thread.start()
        for _ in range(THREADS):
            assert app.waiting.acquire(timeout=120)
        for path in (b"/gone", b"/there"):
            sock = connect_to(server.port, seconds=20)
            sock.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            if path == b"/gone":
                sock.close()
        time.sleep(0.5)
        app.go_on.set()
        assert taken(sock) > 0
        assert "/there" in app.seen
        assert "/gone" not in app.seen
        for thread in waiting:
            thread.join(120)


def test_memory_is_given_back_once_the_crowd_has_gone(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """The C library keeps it until it is told."""
    trimmed = threading.Event()
    monkeypatch.setattr(server_module, "trim", trimmed.set)
    with serving(app) as server:
        sock = reader(server)
        until(lambda: server._server._held > BIG // 2, "the answer is held")
        assert not trimmed.is_set()
        sock.close()
        assert trimmed.wait(120)
