# SPDX-License-Identifier: Apache-2.0
"""Where a request ends, told from its bytes as they come, within limits: no worker thread waits for a slow sender.

The reading of the request stays cheroot's; here only its end is looked for. What comes behind that end is never
read as a second request (the connection is closed instead), so that two readings of one request cannot be played
off against each other.

How the built-in server reads a request: stricter than cheroot where two readers could understand two things.

A request must mean one thing to a proxy and to us (RFC 9112, request smuggling): one Content-Length of digits or
chunks, never both; no folded headers; no blank before a colon. Every refusal is JSON, as the API's own.

A chunked body, read strictly and never more of it than was asked for: cheroot reads any chunk whole.
"""

import contextlib
import json
import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final, Protocol

from cheroot import server as cheroot_server

_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r\n")
_LINE: Final = 1024  # bytes of a size with its extensions, and of a trailer
_TRAILERS: Final = 32


class Readable(Protocol):
    """What stands behind: the connection."""

    def read(self, size: int, /) -> bytes: ...
    def readline(self, size: int, /) -> bytes: ...


class ChunkedBody:
    """The `wsgi.input` of a chunked request. Raises ValueError where the chunking is broken or breaks off."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._left = 0  # of the chunk that was begun
        self._begun = False
        self._ended = False

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, all that come where it is negative; fewer only at the end."""
        parts: list[bytes] = []
        wanted = size
        while wanted != 0 and self._more():
            part = self._source.read(self._left if wanted < 0 else min(wanted, self._left))
            if not part:
                raise ValueError("the body broke off")
            parts.append(part)
            self._left -= len(part)
            wanted -= len(part) if wanted > 0 else 0
        return b"".join(parts)

    def _more(self) -> bool:
        """Whether a byte of the body is to come; goes to the next chunk where one ended."""
        if self._left == 0 and not self._ended:
            if self._begun and self._source.readline(2) != b"\r\n":
                raise ValueError("a chunk is longer than it says")
            match = _CHUNK_SIZE.fullmatch(self._source.readline(_LINE))
            if match is None:
                raise ValueError("the size of a chunk is malformed")
            self._begun, self._left = True, int(match[1], 16)
            if self._left == 0:
                self._ended = True
                self._trailers()
        return self._left > 0

    def _trailers(self) -> None:
        for _ in range(_TRAILERS):
            line = self._source.readline(_LINE)
            if line == b"\r\n":
                return
            if not line.endswith(b"\r\n"):
                break
        raise ValueError("the end of the chunks is malformed")


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


_HEAD_END: Final = b"\r\n\r\n"
_SIZE: Final = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(;[^\r\n]*)?")
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")
_MAX_CHUNK_LINE: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    """Bytes. A body above `body` is not kept; up to `swallow` it is read away first, so that its sender hears."""

    head: int = 64 * 1024
    body: int = 256 * 1024
    swallow: int = 1024 * 1024


class _State(Enum):
    HEAD = auto()  # the blank line behind the headers has not come
    BODY = auto()  # so many bytes are to come
    CHUNKS = auto()  # until the chunk of size 0 and its trailers
    SWALLOW = auto()  # so many bytes are to come, and to be thrown away
    WHOLE = auto()  # a worker can take it


class RequestBuffer:
    """The bytes of one request. `unread` tells that more is to come, or has come, than belongs to it."""

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        self._state = _State.HEAD
        self._buffer = bytearray()
        self._at = 0  # where looking goes on
        self._end = 0  # HEAD, BODY: where the request ends
        self._to_swallow = 0
        self._continue = False
        self.unread = False

    @property
    def begun(self) -> bool:
        """Whether anything has come."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> bool:
        """Take bytes; whether the request is whole now."""
        if self._state is _State.SWALLOW:
            self._to_swallow -= len(data)
            if self._to_swallow <= 0:
                self._done(self._end, unread=self._to_swallow < 0)
            return self._whole()
        self._buffer += data
        if self._state is _State.HEAD:
            self._look_for_head()
        if self._state is _State.BODY and len(self._buffer) >= self._end:
            self._done(self._end)
        if self._state is _State.CHUNKS:
            self._look_for_last_chunk()
        return self._whole()

    def wants_continue(self) -> bool:
        """Whether the sender waits for `100 Continue` before the body; true once."""
        wants, self._continue = self._continue and self._state in {_State.BODY, _State.CHUNKS}, False
        return wants

    def give_up(self) -> None:
        """No more will come: what is there is the request."""
        self._done(len(self._buffer), unread=True)

    def take(self) -> bytes:
        """The bytes of the request."""
        return bytes(self._buffer[: self._end])

    def _whole(self) -> bool:
        return self._state is _State.WHOLE

    def _look_for_head(self) -> None:
        first = self._buffer.find(b"\n", 0, self._limits.head)
        if first >= 0 and self._buffer[first - 1 : first] != b"\r":
            self._done(len(self._buffer), unread=True)
            return
        found = self._buffer.find(_HEAD_END, max(0, self._at - 3))
        if found < 0 or found > self._limits.head:
            self._at = len(self._buffer)
            if found > 0 or self._at > self._limits.head:
                self._done(self._limits.head + 1, unread=True)
            return
        self._at = found + len(_HEAD_END)
        self._read_head(bytes(self._buffer[:found]))

    def _read_head(self, head: bytes) -> None:
        headers = {
            name.strip().lower(): value.strip().lower()
            for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
        }
        self._continue = headers.get(b"expect") == b"100-continue"
        if b"chunked" in headers.get(b"transfer-encoding", b""):
            self._state = _State.CHUNKS
            return
        text = headers.get(b"content-length", b"0")
        length = int(text) if _DIGITS.fullmatch(text) else 0
        self._state, self._end = _State.BODY, self._at + length
        if length > self._limits.body:
            came = len(self._buffer) - self._at
            self._end, self._to_swallow = self._at, length - came
            del self._buffer[self._at :]
            if self._continue or length > self._limits.swallow:
                self._done(self._end, unread=self._to_swallow > 0)
            elif self._to_swallow > 0:
                self._state = _State.SWALLOW
            else:
                self._done(self._end, unread=self._to_swallow < 0)

    def _look_for_last_chunk(self) -> None:
        while self._state is _State.CHUNKS:
            if len(self._buffer) > self._limits.head + self._limits.body:
                self._done(len(self._buffer), unread=True)
                return
            end = self._buffer.find(b"\r\n", self._at, self._at + _MAX_CHUNK_LINE)
            if end < 0:
                if len(self._buffer) - self._at > _MAX_CHUNK_LINE:
                    self._done(len(self._buffer), unread=True)
                return
            size = _SIZE.fullmatch(bytes(self._buffer[self._at : end]))
            if size is None:
                self._done(len(self._buffer), unread=True)
                return
            length = int(size[1], 16)
            if length == 0:
                self._look_for_trailers(end)
                return
            if len(self._buffer) < end + 2 + length + 2:
                return
            self._at = end + 2 + length + 2

    def _look_for_trailers(self, end: int) -> None:
        """Behind the last chunk: none, or lines up to a blank one."""
        if self._buffer[end + 2 : end + 4] == b"\r\n":
            self._done(end + 4)
            return
        found = self._buffer.find(_HEAD_END, end)
        if found >= 0:
            self._done(found + len(_HEAD_END))

    def _done(self, end: int, *, unread: bool = False) -> None:
        self._state = _State.WHOLE
        self._end = end
        self.unread = unread or len(self._buffer) > end
