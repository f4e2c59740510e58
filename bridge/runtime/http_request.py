# SPDX-License-Identifier: Apache-2.0
"""How the built-in server reads a request: stricter than cheroot where two readers could understand two things.

A request must mean one thing to a proxy and to us (RFC 9112, request smuggling): one Content-Length of digits or
chunks, never both; no folded headers; no blank before a colon. Every refusal is JSON, as the API's own.
"""

import contextlib
import json
import re
from typing import Any, Final

from cheroot import server as cheroot_server

from bridge.runtime.http_chunks import ChunkedBody

_MAX_HEADERS: Final = 100
_NAME: Final = re.compile(rb"[!#$%&'*+.^`|~0-9A-Za-z_-]+")
_VALUE: Final = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")
_LENGTH: Final = re.compile(rb"[0-9]+")
_LEADING_SLASHES: Final = re.compile(rb"\A([A-Z]+ )//+")
_ONCE: Final = frozenset({b"Content-Length", b"Host", b"Transfer-Encoding"})


class HeaderReader(cheroot_server.HeaderReader):
    """Reads a header section; ValueError, in words for the client, where it means nothing or two things.

    A header that is repeated is joined by commas (cheroot itself keeps the last one). Names with an underscore are
    dropped: X_Auth_Token would become the same WSGI key as X-Auth-Token. `Expect` was answered before.
    """

    def __call__(self, rfile: Any, hdict: dict[bytes, bytes] | None = None) -> dict[bytes, bytes]:
        """The headers by their name in Title-Case."""
        found = {} if hdict is None else hdict
        for _ in range(_MAX_HEADERS):
            line = rfile.readline()
            if line == b"\r\n":
                return found
            if not line.endswith(b"\r\n"):
                raise ValueError("Header lines end with CRLF.")
            _add(found, line[:-2])
        raise ValueError("Too many headers.")


def _add(found: dict[bytes, bytes], line: bytes) -> None:
    name, colon, value = line.partition(b":")
    value = value.strip(b" \t")
    if not colon or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        raise ValueError("Malformed header.")
    if b"_" in name or name.lower() == b"expect":
        return
    key = name.title()
    if key in found and key in _ONCE:
        raise ValueError(f"More than one {key.decode()} header.")
    found[key] = b", ".join((found[key], value)) if key in found else value


class _OneSlash:
    """A reader of the request line for which a path never begins with two slashes: `//v2.1` is no host name."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def readline(self, *size: int) -> bytes:
        """The line."""
        return _LEADING_SLASHES.sub(rb"\1/", self._inner.readline(*size))


class Request(cheroot_server.HTTPRequest):
    """One request."""

    header_reader = HeaderReader()

    def read_request_line(self) -> bool:
        """As cheroot; an endpoint that was configured with a slash at its end works."""
        inner, self.rfile = self.rfile, _OneSlash(self.rfile)
        try:
            return bool(super().read_request_line())
        finally:
            self.rfile = inner

    def read_request_headers(self) -> bool:
        """As cheroot, and refuses what says its length in two ways."""
        if not super().read_request_headers():
            return False
        length, chunked = self.inheaders.get(b"Content-Length"), b"Transfer-Encoding" in self.inheaders
        if chunked and (length is not None or self.response_protocol != "HTTP/1.1"):
            self.simple_response("400 Bad Request", "Content-Length and Transfer-Encoding exclude each other.")
            return False
        if length is not None and not _LENGTH.fullmatch(length):
            self.simple_response("400 Bad Request", "Malformed Content-Length.")
            return False
        return True

    def respond(self) -> None:
        """As cheroot. The connection of a chunked request is not used again."""
        length = int(self.inheaders.get(b"Content-Length", 0))
        if self.chunked_read or self.conn.last_request:
            self.close_connection = True
        connection = self.conn.rfile
        self.rfile = (
            ChunkedBody(connection) if self.chunked_read else cheroot_server.KnownLengthRFile(connection, length)
        )
        self.server.gateway(self).respond()
        if self.ready:
            self.ensure_headers_sent()
        if self.chunked_write:
            self.conn.wfile.write(b"0\r\n\r\n")

    def simple_response(self, status: str, msg: str = "") -> None:
        """An answer of the server's own, in JSON; the connection ends with it."""
        self.close_connection = True
        title = str(status)[4:]
        body = json.dumps({"message": msg or title, "code": str(status), "title": title}).encode()
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            "X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
        )
        with contextlib.suppress(OSError):  # who is gone needs no answer
            self.conn.wfile.write(head.encode() + body)
