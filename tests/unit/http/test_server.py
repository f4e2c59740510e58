# SPDX-License-Identifier: Apache-2.0
"""The HTTP server part: what it binds, what it drops, how it stops."""

import contextlib
import http.client
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from bridge.core.errors import ConfigError
from bridge.http.server import HttpServer


class App:
    """Remembers each environ; waits in /slow until told."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.entered = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        self.seen.append(environ)
        if environ["PATH_INFO"] == "/slow":
            self.entered.set()
            self.go_on.wait(120)
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]


def make(app: App, port: int = 0) -> HttpServer:
    return HttpServer(
        "test", app, host="127.0.0.1", port=port, threads=2, option="[test] port", server_name="test", grace=5
    )


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def server(app: App) -> Iterator[HttpServer]:
    part = make(app)
    part.start()
    yield part
    app.go_on.set()
    part.stop()
    assert part.join(120)


def exchange(port: int, raw: bytes) -> bytes:
    """Send bytes, read until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=120) as sock:
        sock.sendall(raw)
        return b"".join(iter(lambda: sock.recv(65536), b""))


def test_a_taken_port_is_one_line_that_names_the_option(server: HttpServer, app: App) -> None:
    """Before anything is started."""
    with pytest.raises(ConfigError, match=rf"\[test\] port: 127\.0\.0\.1:{server.port} cannot be used"):
        make(app, server.port)


def test_a_server_that_was_never_started_keeps_no_thread(app: App) -> None:
    """A start that fails elsewhere must end the process."""
    before = {thread for thread in threading.enumerate() if not thread.daemon}
    part = make(app)
    alive = {thread for thread in threading.enumerate() if not thread.daemon}
    part.stop()
    assert part.join(120)
    assert alive == before


def test_repeated_microversion_headers_arrive_joined(server: HttpServer, app: App) -> None:
    """cheroot alone would keep the last."""
    exchange(
        server.port,
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"OpenStack-API-Version: compute 2.51\r\nOpenStack-API-Version: volume 3.60\r\n\r\n",
    )
    assert app.seen[0]["HTTP_OPENSTACK_API_VERSION"] == "compute 2.51, volume 3.60"


def test_a_header_with_underscores_cannot_pose_as_another(server: HttpServer, app: App) -> None:
    """X_Auth_Token is not X-Auth-Token."""
    exchange(server.port, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX_Auth_Token: forged\r\n\r\n")
    assert "HTTP_X_AUTH_TOKEN" not in app.seen[0]


def test_an_answer_on_its_way_gets_out_when_stopping(app: App) -> None:
    """And nobody new gets in."""
    part = make(app)
    part.start()
    connection = http.client.HTTPConnection("127.0.0.1", part.port, timeout=120)
    connection.request("GET", "/slow")
    assert app.entered.wait(120)
    part.stop()
    app.go_on.set()
    assert connection.getresponse().read() == b"ok"
    assert part.join(120)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", part.port), timeout=2)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 99999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nBig: " + b"x" * 100_000 + b"\r\n\r\n",
    ],
    ids=["binary", "unknown protocol", "endless body", "length that is none", "endless header"],
)
def test_broken_requests_leave_it_serving(server: HttpServer, raw: bytes) -> None:
    """They get a 4xx or 5xx, or are cut off; the next one is answered."""
    with contextlib.suppress(ConnectionResetError):
        exchange(server.port, raw)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    connection.request("GET", "/")
    assert connection.getresponse().status == 200
