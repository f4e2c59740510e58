# SPDX-License-Identifier: Apache-2.0
"""The proxy with faults does to a connection what its words say, and heals it again."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.proxy import Link, Proxy, Way, Which
from tests.lab.waiting import until


class Echo:
    """A server that sends back what it is sent, under its own name."""

    def __init__(self, name: bytes = b"") -> None:
        self._name = name
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                while piece := client.recv(4096):
                    client.sendall(self._name + piece)
            except OSError:
                pass


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy(echo.port) as made:
        yield made


def connect(proxy: Proxy) -> socket.socket:
    before = proxy.accepted
    client = socket.create_connection(("127.0.0.1", proxy.port), 10)
    client.settimeout(10)
    proxy.wait_accepted(before + 1)
    return client


def ask(client: socket.socket, words: bytes) -> bytes:
    client.sendall(words)
    return client.recv(4096)


def is_silent(client: socket.socket, seconds: float = 0.3) -> bool:
    client.settimeout(seconds)
    try:
        return not client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(10)


def test_without_a_fault_bytes_move_both_ways(proxy: Proxy) -> None:
    with connect(proxy) as client:
        assert ask(client, b"hello") == b"hello"


def test_a_frozen_connection_is_silent_and_delivers_everything_once_healed(proxy: Proxy) -> None:
    with connect(proxy) as client:
        ask(client, b"a")
        proxy.freeze()
        client.sendall(b"held")
        assert is_silent(client)
        proxy.heal()
        assert client.recv(4096) == b"held"


def test_freezing_old_connections_leaves_new_ones_alone(proxy: Proxy) -> None:
    with connect(proxy) as old:
        proxy.freeze()
        with connect(proxy) as new:
            assert ask(new, b"new") == b"new"
        old.sendall(b"old")
        assert is_silent(old)


def test_freezing_new_connections_leaves_old_ones_alone(proxy: Proxy) -> None:
    with connect(proxy) as old:
        proxy.freeze(Which.NEW)
        with connect(proxy) as new:
            new.sendall(b"new")
            assert is_silent(new)
        assert ask(old, b"old") == b"old"


def test_a_client_of_a_frozen_connection_does_not_see_the_servers_end(proxy: Proxy, echo: Echo) -> None:
    with connect(proxy) as client:
        ask(client, b"a")
        proxy.freeze()
        client.shutdown(socket.SHUT_WR)  # the server would close now
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(1)


def test_lost_bytes_never_come(proxy: Proxy) -> None:
    with connect(proxy) as client:
        proxy.lose(way=Way.UP)
        client.sendall(b"lost")
        until(lambda: is_silent(client), "silence")
        proxy.heal()
        assert ask(client, b"kept") == b"kept"


def test_drip_and_delay_take_their_time(proxy: Proxy) -> None:
    with connect(proxy) as client:
        proxy.drip(100, way=Way.DOWN)
        started = time.monotonic()
        client.sendall(b"x" * 20)
        got = b""
        while len(got) < 20:
            got += client.recv(4096)
        assert time.monotonic() - started >= 0.1
        proxy.delay(0.2, way=Way.UP)
        started = time.monotonic()
        ask(client, b"late")
        assert time.monotonic() - started >= 0.2


def test_reset_breaks_what_is_open_and_refuse_turns_away_what_comes(proxy: Proxy) -> None:
    with connect(proxy) as client:
        ask(client, b"a")
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    proxy.refuse()
    with (
        pytest.raises(ConnectionResetError),
        socket.create_connection(("127.0.0.1", proxy.port), 10) as client,
    ):
        client.recv(1)
    proxy.heal()
    with connect(proxy) as client:
        assert ask(client, b"again") == b"again"


def test_a_new_target_is_for_new_connections_only() -> None:
    first, second = Echo(b"1"), Echo(b"2")
    with Proxy(first.port) as proxy, connect(proxy) as old:
        assert ask(old, b"x") == b"1x"
        proxy.retarget(second.port)
        with connect(proxy) as new:
            assert ask(new, b"x") == b"2x"
        assert ask(old, b"x") == b"1x"


def test_a_look_sees_each_piece_and_can_freeze_at_one(echo: Echo) -> None:
    def look(link: Link, way: Way, piece: bytes) -> bytes:
        if way is Way.UP and b"COMMIT" in piece:
            link.freeze(Way.DOWN)  # the server does it, and its answer never comes
        return piece

    with Proxy(echo.port, look=look) as proxy, connect(proxy) as client:
        assert ask(client, b"INSERT") == b"INSERT"
        client.sendall(b"COMMIT")
        assert is_silent(client)


def test_unix_sockets_go_through_as_well(tmp_path: Path, echo: Echo) -> None:
    with Proxy(echo.port, listen=tmp_path / "sock"), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(tmp_path / "sock"))
        assert ask(client, b"hello") == b"hello"


def test_the_url_goes_through_the_proxy(proxy: Proxy) -> None:
    port = proxy.port
    assert proxy.url("amqp://guest:p%40w@10.0.0.1:5672/%2f") == f"amqp://guest:p%40w@127.0.0.1:{port}/%2f"
    assert proxy.url("http://[::1]:8774/v2.1") == f"http://127.0.0.1:{port}/v2.1"
    assert proxy.url("postgresql+psycopg://eb@db/x?a=b") == f"postgresql+psycopg://eb@127.0.0.1:{port}/x?a=b"
