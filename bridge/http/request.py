# SPDX-License-Identifier: Apache-2.0
"""One request: its bytes as they come, within limits, and its reading, stricter than cheroot's.

Chunks are decoded once, while they come. The head is read by cheroot, which must find one meaning in it. A request
must mean the same to a proxy and to us, because two readings allow request smuggling (RFC 9112).
Bytes behind the end of a request are never read as a second request: the connection is closed instead.
"""

import contextlib
import json
import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from cheroot import server as cheroot_server
from cheroot.errors import MaxSizeExceeded

_HEAD_END: Final = b"\r\n\r\n"
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r\n")
_TARGET: Final = re.compile(rb"[A-Z]+ (/[^ ?\r\n]*)")
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")
_CHUNK_LINE: Final = 256  # bytes of a size with its extensions, and of a trailer
_MAX_HEADERS: Final = 100
_NAME: Final = re.compile(rb"[!#$%&'*+.^`|~0-9A-Za-z_-]+")
_VALUE: Final = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")
_LENGTH: Final = re.compile(rb"[0-9]+")
_LEADING_SLASHES: Final = re.compile(rb"\A([A-Z]+ )//+")
_ONCE: Final = frozenset({b"Content-Length", b"Host", b"Transfer-Encoding"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    """Limits of a request, in bytes. A body above `body` is not kept.

    Up to `swallow` bytes of a too large body are read first, because its sender then reads the refusal.
    `line` is the request line. `framing` is all of a chunked body beside its data, because each chunk costs the
    loop time.
    """

    line: int = 8 * 1024
    head: int = 32 * 1024
    body: int = 128 * 1024
    framing: int = 16 * 1024
    swallow: int = 1024 * 1024


class _State(Enum):
    """The part of a request that is coming."""

    HEAD = auto()  # up to the blank line behind the headers
    BODY = auto()  # a number of bytes
    SIZE = auto()  # the size of a chunk
    DATA = auto()  # a chunk, and the line end behind it
    TRAILERS = auto()  # lines up to a blank line
    SWALLOW = auto()  # a number of bytes that are dropped
    WHOLE = auto()  # nothing: a worker can take the request


class RequestBuffer:
    """The bytes of one request. `unread`: bytes beyond the request are to come, or have come."""

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        self._state = _State.HEAD
        self._buffer = bytearray()
        """Bytes that are not parsed yet; all bytes while the head is coming."""
        self._at = 0
        self._head = b""
        self._body = bytearray()
        self._left = 0  # of the body, of the chunk with its line end, or to swallow
        self._framing = 0
        self._continue = False
        self.unread = False
        self.broken = False
        """The flag of chunks that make no sense, are too many, or broke off."""

    @property
    def begun(self) -> bool:
        """True once a byte has come."""
        return bool(self._buffer or self._head)

    @property
    def size(self) -> int:
        """The number of bytes in memory."""
        return len(self._buffer) + len(self._head) + len(self._body)

    @property
    def path(self) -> bytes:
        """The path of the request target as it was sent, empty where the target has no path."""
        match = _TARGET.match(self._head)
        return match[1] if match else b""

    def feed(self, data: bytes) -> bool:
        """Take bytes; return True once the request is whole."""
        if self._state is _State.SWALLOW:
            self._left -= len(data)
            if self._left <= 0:
                self._done(unread=self._left < 0)
            return self._whole()
        self._buffer += data
        if self._state is _State.HEAD:
            self._look_for_head()
        if self._state is _State.BODY:
            self._take_body()
        elif self._state in {_State.SIZE, _State.DATA, _State.TRAILERS}:
            self._decode()
        return self._whole()

    def wants_continue(self) -> bool:
        """Return True, only once, where the sender waits for `100 Continue` before the body."""
        waits = self._state in {_State.BODY, _State.SIZE}
        wants, self._continue = self._continue and waits, False
        return wants

    def give_up(self) -> None:
        """Take the bytes so far as the request, because no more will come."""
        self.broken = self._state in {_State.SIZE, _State.DATA, _State.TRAILERS}
        if self._state is _State.HEAD:
            self._head = bytes(self._buffer)
        elif self._state is _State.BODY:
            self._body = self._buffer
        self._buffer = bytearray()
        self._done(unread=True)

    def take(self) -> bytes:
        """Return the head as it came, and the body behind it with its chunks decoded."""
        return self._head + self._body

    def _whole(self) -> bool:
        return self._state is _State.WHOLE

    def _look_for_head(self) -> None:
        line = self._buffer.find(b"\n", 0, self._limits.line + 2)
        if line >= 0 and self._buffer[line - 1 : line] != b"\r":
            self._refuse_head(len(self._buffer))
            return
        if line < 0 and len(self._buffer) > self._limits.line + 2:
            self._refuse_head(self._limits.line + 2)
            return
        found = self._buffer.find(_HEAD_END, max(0, self._at - 3))
        if found < 0 or found > self._limits.head:
            self._at = len(self._buffer)
            if found > 0 or self._at > self._limits.head:
                self._refuse_head(self._limits.head + 1)
            return
        end = found + len(_HEAD_END)
        self._head = bytes(self._buffer[:end])
        del self._buffer[:end]
        self._read_head(self._head[:found])

    def _refuse_head(self, end: int) -> None:
        """Hand over a head that can never be whole, because `Request` words its refusal."""
        self._head = bytes(self._buffer[:end])
        self._buffer = bytearray()
        self._done(unread=True)

    def _read_head(self, head: bytes) -> None:
        headers = {
            name.strip().lower(): value.strip().lower()
            for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
        }
        self._continue = headers.get(b"expect") == b"100-continue"
        if b"chunked" in headers.get(b"transfer-encoding", b""):
            self._state = _State.SIZE
            return
        text = headers.get(b"content-length", b"0")
        self._left = int(text) if _DIGITS.fullmatch(text) else 0
        self._state = _State.BODY
        if self._left <= self._limits.body:
            return
        length, self._left = self._left, self._left - len(self._buffer)
        self._buffer = bytearray()
        if self._continue or length > self._limits.swallow or self._left <= 0:
            self._done(unread=self._left != 0)
        else:
            self._state = _State.SWALLOW

    def _take_body(self) -> None:
        if len(self._buffer) >= self._left:
            self._body = self._buffer[: self._left]
            del self._buffer[: self._left]
            self._done()

    def _decode(self) -> None:
        """Move the chunks that have come from the buffer to the body."""
        at, buffer = 0, self._buffer
        while self._state is not _State.WHOLE:
            if self._state is _State.DATA:
                step = min(self._left, len(buffer) - at)
                if step == 0:
                    break
                self._body += buffer[at : at + step]
                at, self._left = at + step, self._left - step
                if len(self._body) > self._limits.body + 2:
                    self._state, self.unread = _State.WHOLE, True
                elif self._left == 0:
                    self._end_chunk()
                continue
            end = buffer.find(b"\n", at, at + _CHUNK_LINE)
            if end < 0:
                if len(buffer) - at >= _CHUNK_LINE:
                    self._break_off()
                break
            self._framing += end + 1 - at + len(b"\r\n")
            self._read_line(bytes(buffer[at : end + 1]))
            at = end + 1
        del buffer[:at]
        if self._state is _State.WHOLE:
            self._done(unread=self.unread or self.broken)

    def _end_chunk(self) -> None:
        """Remove the line end behind a chunk from the body again."""
        whole = self._body.endswith(b"\r\n")
        del self._body[-2:]
        self._state = _State.SIZE
        if not whole:
            self._break_off()

    def _read_line(self, line: bytes) -> None:
        """Read the size of a chunk, or a trailer."""
        match = _CHUNK_SIZE.fullmatch(line) if self._state is _State.SIZE else None
        if self._framing > self._limits.framing or not line.endswith(b"\r\n"):
            self._break_off()
        elif self._state is _State.TRAILERS:
            if line == b"\r\n":
                self._state = _State.WHOLE
        elif match is None:
            self._break_off()
        elif size := int(match[1], 16):
            self._state, self._left = _State.DATA, size + len(b"\r\n")
        else:
            self._state = _State.TRAILERS

    def _break_off(self) -> None:
        self.broken = True
        self._state = _State.WHOLE

    def _done(self, *, unread: bool = False) -> None:
        self._state = _State.WHOLE
        self.unread = unread or bool(self._buffer)
        self._buffer = bytearray()


class HeaderReader(cheroot_server.HeaderReader):
    """A reader of a header section; raises ValueError, with a text for the client, where it has not one meaning.

    A repeated header is joined by commas (cheroot itself keeps the last value). Names with an underscore are
    dropped, because X_Auth_Token would become the same WSGI key as X-Auth-Token. `Expect` was answered before.
    """

    def __call__(self, rfile: Any, hdict: dict[bytes, bytes] | None = None) -> dict[bytes, bytes]:
        """Return the headers by their name in Title-Case."""
        headers = {} if hdict is None else hdict
        for _ in range(_MAX_HEADERS):
            line = rfile.readline()
            if line == b"\r\n":
                return headers
            if not line.endswith(b"\r\n"):
                raise ValueError("Header lines end with CRLF.")
            _add(headers, line[:-2])
        raise ValueError("Too many headers.")


def _add(headers: dict[bytes, bytes], line: bytes) -> None:
    name, colon, value = line.partition(b":")
    value = value.strip(b" \t")
    if not colon or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        raise ValueError("Malformed header.")
    if b"_" in name or name.lower() == b"expect":
        return
    key = name.title()
    if key in headers and key in _ONCE:
        raise ValueError(f"More than one {key.decode()} header.")
    headers[key] = b", ".join((headers[key], value)) if key in headers else value


class _RequestLine:
    """A bounded reader of the request line for cheroot, whose paths never begin with two slashes.

    Two slashes become one, because `//v2.1` would be read as a host name.
    """

    def __init__(self, inner: Any, limit: int) -> None:
        self._inner = inner
        self._limit = limit

    def readline(self, *size: int) -> bytes:
        """Return the line; raises MaxSizeExceeded, which is a 414."""
        line: bytes = self._inner.readline(*size)
        if len(line) > self._limit + 2 or (len(line) == self._limit + 2 and not line.endswith(b"\n")):
            raise MaxSizeExceeded
        return _LEADING_SLASHES.sub(rb"\1/", line)


class _Body:
    """The `wsgi.input` of a chunked request, already decoded. Raises ValueError where the chunks were broken."""

    def __init__(self, source: Any, *, broken: bool) -> None:
        self._source = source
        self._broken = broken

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes, all of them where `size` is negative; fewer only at the end."""
        if self._broken:
            raise ValueError("the chunks of the body are malformed, or broke off")
        data: bytes = self._source.read(size)
        return data


class Request(cheroot_server.HTTPRequest):
    """One request that is read from memory."""

    header_reader = HeaderReader()

    def read_request_line(self) -> bool:
        """Read the first line, also from an endpoint that was configured with a slash at its end."""
        inner, self.rfile = self.rfile, _RequestLine(self.rfile, self.conn.limits.line)
        try:
            return bool(super().read_request_line())
        finally:
            self.rfile = inner

    def read_request_headers(self) -> bool:
        """Read the headers, and refuse a request that gives its length in two ways."""
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
        """Call the application for the answer. The connection of a chunked request is not used again."""
        if self.chunked_read or self.conn.last_request:
            self.close_connection = True
        source = self.conn.rfile
        if self.chunked_read:
            self.rfile = _Body(source, broken=source.broken)
        else:
            self.rfile = cheroot_server.KnownLengthRFile(source, int(self.inheaders.get(b"Content-Length", 0)))
        self.server.gateway(self).respond()
        if self.ready:
            self.ensure_headers_sent()
        if self.chunked_write:
            self.conn.wfile.write(b"0\r\n\r\n")

    def simple_response(self, status: str, msg: str = "") -> None:
        """Answer for the server itself, in JSON; the connection ends with it."""
        self.close_connection = True
        title = str(status)[4:]
        body = json.dumps({"message": msg or title, "code": str(status), "title": title}).encode()
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            "X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
        )
        with contextlib.suppress(OSError):  # a client that has gone does not need an answer
            self.conn.wfile.write(head.encode() + body)
