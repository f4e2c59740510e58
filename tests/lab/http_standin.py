# SPDX-License-Identifier: Apache-2.0
"""A stand-in for a service over real HTTP, which answers for the length of a `with` block."""

import sys
import threading
from abc import ABC, abstractmethod
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class QuietHandler(BaseHTTPRequestHandler):
    """A handler of requests that prints nothing."""

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal."""

    def send(self, status: int, kind: str, data: bytes, **headers: str) -> None:
        """Send a whole answer of this content type; `headers` with _ for -."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)


class _QuietServer(ThreadingHTTPServer):
    """A server that prints nothing of clients that leave."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print an error, unless the client broke the connection."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class HttpStandIn(ABC):
    """A server on a free port of loopback; `handler` makes the class that answers its requests."""

    def __init__(self) -> None:
        self._server = _QuietServer(("127.0.0.1", 0), self.handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def root(self) -> str:
        """The URL of the server, without a path."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @abstractmethod
    def handler(self) -> type[QuietHandler]:
        """Return the class that answers requests."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
