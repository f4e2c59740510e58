# SPDX-License-Identifier: Apache-2.0
"""Clients that no library is: raw bytes, readers that never read, senders that never end."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

ETHERNET_MSS: Final = 1448
"""Loopback's own is 64 KiB, which hides a slow reader behind megabytes of send buffer."""
_SMALL_BUFFER: Final = 2048


def connect(port: int, *, small: bool = False, seconds: float = 15.0) -> socket.socket:
    """Return a connection to loopback; `small` as an Ethernet client with a tiny receive buffer."""
    sock = socket.socket()
    if small:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, ETHERNET_MSS)
    sock.settimeout(seconds)
    try:
        sock.connect(("127.0.0.1", port))
    except OSError:
        sock.close()
        raise
    return sock


def exchange(port: int, request: bytes, *, seconds: float = 15.0) -> bytes:
    """Send bytes and return what comes until the server closes or `seconds` are over."""
    answer = b""
    with connect(port, seconds=seconds) as sock, contextlib.suppress(OSError):
        sock.sendall(request)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and (piece := sock.recv(65536)):
            answer += piece
    return answer


def status(answer: bytes) -> int:
    """Return the status code of an answer, 0 without one."""
    words = answer.split(b" ", 2)
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0


@contextmanager
def crowd(count: int, work: Callable[[threading.Event], None]) -> Iterator[threading.Event]:
    """Run `work(done)` in so many threads, again and again until the end of the block."""
    done = threading.Event()

    def loop() -> None:
        while not done.is_set():
            try:
                work(done)
            except OSError:
                done.wait(0.05)

    threads = [threading.Thread(target=loop, name=f"stranger {n}", daemon=True) for n in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield done
    finally:
        done.set()
        for thread in threads:
            thread.join(30)
