# SPDX-License-Identifier: Apache-2.0
"""Clients without credentials that read slowly, send slowly, or send what is dear to read."""

import base64
import contextlib
import os
import socket
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

from tests.attack.clients import connect, crowd, exchange, status
from tests.attack.frame import Attack
from tests.attack.grounds import BUDGET, PATH, ApiGround

_READERS: Final = 30
_SENDERS: Final = 420
_SLACK: Final = 16
"""MiB that the process may hold during an attack above its budget, and give back."""


def never_read(ground: ApiGround, seconds: float, *, path: bytes, drip: bool) -> Sequence[str]:
    """Ask for the largest answer there is without credentials, and read nothing or a byte now and then."""

    def stranger(done: threading.Event) -> None:
        with connect(ground.port, small=True) as sock:
            sock.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            until = time.monotonic() + 12
            while not done.wait(1) and time.monotonic() < until:
                if drip and not sock.recv(16):
                    return

    with crowd(_READERS, stranger):
        time.sleep(seconds)
    return []


def pipelined(ground: ApiGround, seconds: float) -> Sequence[str]:
    """Send requests on one connection without reading any answer."""
    request = b"GET /" + b"A" * 4000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"

    def stranger(done: threading.Event) -> None:
        with connect(ground.port, small=True, seconds=5) as sock:
            while not done.is_set():
                sock.sendall(request)

    with crowd(_READERS, stranger):
        time.sleep(seconds)
    return []


def long_lines(ground: ApiGround, seconds: float) -> Sequence[str]:
    """Send paths, queries and headers above each limit: short answers, and nothing of it comes back."""
    del seconds
    cases = {
        "path": b"GET /" + b"A" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        "encoded path": b"GET /" + b"%F0%9F%92%A9" * 700 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        "raw path": b"GET /" + b"\xff" * 8000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        "query": b"GET /?" + b"A" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        "host": b"GET / HTTP/1.1\r\nHost: " + b"A" * 9000 + b"\r\n\r\n",
        "header": b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"A" * 60_000 + b"\r\n\r\n",
        "headers": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(5000)) + b"\r\n",
        "version": b"GET /v2.1/ HTTP/1.1\r\nHost: x\r\nOpenStack-API-Version: compute " + b"9" * 9000 + b"\r\n\r\n",
    }
    complaints = []
    for name, request in cases.items():
        answer = exchange(ground.port, request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
        if len(answer) > 20_000:
            complaints.append(f"{name}: an answer of {len(answer)} bytes")
        if status(answer) not in {0, 300, 400, 413, 414, 431, 200 if name == "host" else 0}:
            complaints.append(f"{name}: answered {status(answer)}")
    return complaints


def half_sent(ground: ApiGround, seconds: float, *, size: int) -> Sequence[str]:
    """Send most of a body, or of a head, on more connections than there may be, and wait."""
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode()
    most = 0
    socks: list[socket.socket] = []
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            if len(socks) < _SENDERS:
                with contextlib.suppress(OSError):
                    sock = connect(ground.port, seconds=5)
                    socks.append(sock)
                    sock.sendall(head + b" " * (size - 1))
            else:
                time.sleep(0.2)
            most = max(most, ground.memory())
    finally:
        for sock in socks:
            sock.close()
    time.sleep(1)
    allowed = max(BUDGET, ground.memory_before) + _SLACK
    return [f"{most} MiB in use during it"] if most > allowed else []


def half_heads(ground: ApiGround, seconds: float) -> Sequence[str]:
    """Send heads that never end."""
    request = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"A" * 15_000 + b"\r\n"

    def stranger(done: threading.Event) -> None:
        with connect(ground.port, seconds=15) as sock:
            sock.sendall(request)
            while not done.wait(0.2):
                sock.sendall(b"X")

    with crowd(_READERS * 4, stranger):
        time.sleep(seconds)
    return []


def odd_chunks(ground: ApiGround, seconds: float) -> Sequence[str]:
    """Send bodies in chunks of a byte, with extensions, trailers without end, and sizes that lie."""
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    bodies = [
        b"1\r\n \r\n" * 100_000 + b"0\r\n\r\n",
        (b"1;" + b"x" * 200 + b"\r\n \r\n") * 3000 + b"0\r\n\r\n",
        b"0\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
        b"ffffffff\r\n" + b" " * 300_000,
        b"00000000000000000001\r\n \r\n0\r\n\r\n",
        b"1\r\n  \r\n0\r\n\r\n",
    ]
    turn = iter(range(10**9))

    def stranger(done: threading.Event) -> None:
        del done
        exchange(ground.port, head + bodies[next(turn) % len(bodies)], seconds=5)

    with crowd(8, stranger):
        time.sleep(seconds)
    return []


def silent(ground: ApiGround, seconds: float) -> Sequence[str]:
    """Open connections and say nothing, again and again."""

    def stranger(done: threading.Event) -> None:
        socks = [connect(ground.port, seconds=5) for _ in range(20)]
        done.wait(2)
        for sock in socks:
            sock.close()

    with crowd(_READERS, stranger):
        time.sleep(seconds)
    return []


def gone(ground: ApiGround, seconds: float) -> Sequence[str]:
    """Send whole requests with bad credentials and go away at once."""
    pair = base64.b64encode(b"cinder:" + os.urandom(6).hex().encode())
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nAuthorization: Basic "
    request = head.encode() + pair + b"\r\n\r\n{}"

    def stranger(done: threading.Event) -> None:
        del done
        connect(ground.port, seconds=5).close()
        with connect(ground.port, seconds=5) as sock:
            sock.sendall(request)

    with crowd(16, stranger):
        time.sleep(seconds)
    return []


ATTACKS: Final = (
    Attack(
        name="slow-readers",
        about="ask for 8 kB paths and never read the answer",
        ground="basic",
        run=partial(never_read, path=b"/" + b"A" * 8000, drip=False),
    ),
    Attack(
        name="slow-readers-long",
        about="the same with 60 kB paths",
        ground="basic",
        run=partial(never_read, path=b"/" + b"A" * 60_000, drip=False),
        short=False,
    ),
    Attack(
        name="dripping-readers",
        about="read 16 bytes a second of each answer",
        ground="basic",
        run=partial(never_read, path=b"/" + b"\xff" * 8000, drip=True),
    ),
    Attack(name="pipelined", about="send requests and read no answer", ground="basic", run=pipelined, short=False),
    Attack(name="long-lines", about="paths, queries and headers above each limit", ground="basic", run=long_lines),
    Attack(
        name="half-bodies",
        about=f"{_SENDERS} bodies that are never whole",
        ground="basic",
        run=partial(half_sent, size=100_000),
    ),
    Attack(
        name="half-large-bodies",
        about=f"{_SENDERS} bodies above the limit that are never whole",
        ground="basic",
        run=partial(half_sent, size=250_000),
        short=False,
    ),
    Attack(name="half-heads", about="heads that never end, a byte at a time", ground="basic", run=half_heads),
    Attack(name="odd-chunks", about="chunks of a byte, endless trailers", ground="basic", run=odd_chunks),
    Attack(name="silent", about="connections that say nothing", ground="basic", run=silent, short=False),
    Attack(name="gone", about="requests whose clients have gone", ground="basic", run=gone, short=False),
)
