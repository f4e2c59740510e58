# SPDX-License-Identifier: Apache-2.0
"""An HTTP server that sends its answer too slowly to ever end: in its headers, its body, or not at all."""

import contextlib
import socket
import threading
from enum import Enum
from types import TracebackType
from typing import Final, Self

_HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class Slowness(Enum):
    """Where the answer stops flowing."""

    SILENT = "silent"  # the request is read and nothing is answered
    STATUS = "status"  # the status line comes byte by byte
    HEADERS = "headers"  # a header comes byte by byte
    BODY = "body"  # a body with a length comes byte by byte
    CHUNKS = "chunks"  # a chunked body comes byte by byte
    ENDLESS = "endless"  # a body without a length comes fast and never ends


class SlowServer:
    """A server on a port of its own; it answers as `how` says, with `pause` seconds between two bytes."""

    def __init__(self, how: Slowness, *, pause: float = 0.02) -> None:
        self._how = how
        self._pause = pause
        self._stop = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        self.requests = 0

    @property
    def url(self) -> str:
        """The base of its paths."""
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def close(self) -> None:
        """End it and every answer on its way."""
        self._stop.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(120)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            self.requests += 1
            match self._how:
                case Slowness.SILENT:
                    self._stop.wait()
                case Slowness.STATUS:
                    self._drip(connection, b"HTTP/1.1 200 " + b"O" * 60_000)
                case Slowness.HEADERS:
                    connection.sendall(_HEAD)
                    self._drip(connection, b"X-Slow: " + b"x" * 60_000)
                case Slowness.BODY:
                    connection.sendall(_HEAD + b"Content-Length: 100000\r\n\r\n")
                    self._drip(connection, b" " * 100_000)
                case Slowness.CHUNKS:
                    connection.sendall(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
                    self._drip(connection, b"1\r\n \r\n" * 20_000)
                case Slowness.ENDLESS:
                    connection.sendall(_HEAD + b"Connection: close\r\n\r\n")
                    while not self._stop.is_set():
                        connection.sendall(b" " * 65536)

    def _drip(self, connection: socket.socket, text: bytes) -> None:
        for position in range(len(text)):
            if self._stop.wait(self._pause):
                return
            connection.sendall(text[position : position + 1])
