# SPDX-License-Identifier: Apache-2.0
"""A connection that never holds a worker: the server's loop reads its requests and writes its answers.

A worker gets a connection only when the handshake and a whole request have arrived. The worker leaves an answer in
memory. cheroot alone gives a connection to a worker at its first byte. Its loop that accepts also does the TLS
handshake, and its worker waits while the client takes the answer. A few slow clients then stop all others.
"""

import contextlib
import io
import selectors
import socket
import ssl
import struct
import time
from enum import Enum, auto
from typing import Any, Final

from cheroot import server as cheroot_server

from bridge.http.request import Request, RequestBuffer, RequestLimits

_READ: Final = 64 * 1024
_MAX_REQUESTS: Final = 1000  # of one connection
_EBB: Final = 2.0  # seconds for the rest of a refused request, because its sender reads the answer after it
_PATIENCE: Final = 1.0  # seconds in the queue after which a client that has closed its side counts as gone
_LAST_WORDS: Final = 5.0  # seconds for an answer that is ready when the server stops
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER that makes the kernel drop unsent bytes instead of keeping them."""


class Arrived(Enum):
    """The result of one check of a connection."""

    PART = auto()  # more bytes must come, or must be taken
    WHOLE = auto()  # a worker can answer
    GONE = auto()  # the connection is over


class _Phase(Enum):
    """The one thing a connection waits for."""

    REQUEST = auto()  # bytes of a request
    WORKER = auto()  # the worker's answer
    TAKING = auto()  # the client, to take the answer
    EBB = auto()  # the rest of a request that was refused early


class _Whole(io.BytesIO):
    """One request in memory, where cheroot expects a file over a socket."""

    bytes_read = 0
    broken = False
    """The flag of a body whose chunks made no sense, or broke off."""

    def has_data(self) -> bool:
        """Return False, because no bytes are left for the next request."""
        return False


class _Answer:
    """One answer in memory, where cheroot expects a file over a socket."""

    def __init__(self) -> None:
        self.data = bytearray()

    @property
    def bytes_written(self) -> int:
        """The length of the answer so far."""
        return len(self.data)

    def write(self, data: bytes) -> int:
        """Append bytes to the answer."""
        self.data += data
        return len(data)

    def flush(self) -> None:
        """Do nothing, because the loop sends the answer."""

    def close(self) -> None:
        """Do nothing, because the loop closes the connection."""


class Connection(cheroot_server.HTTPConnection):
    """A client's connection. The server's loop calls `advance`; the thread with the connection calls the rest."""

    RequestHandlerClass = Request
    limits = RequestLimits()

    def __init__(self, server: Any, sock: socket.socket, makefile: Any) -> None:
        super().__init__(server, sock, makefile)
        now = time.monotonic()
        self.rfile = _Whole()
        self.wfile = _Answer()
        self.began: float | None = now
        """The time at which the request began to come, or the answer to be taken; None between two requests."""
        self.deadline = now + server.request_timeout
        self.interest = selectors.EVENT_READ
        self.reserved = False
        self._phase = _Phase.REQUEST
        self._buffer = RequestBuffer(self.limits)
        self._handshake = isinstance(sock, ssl.SSLSocket)
        self._requests = 0
        self._unread = False
        self._keep = False
        self._sent = 0
        self._queued = now
        self._cut = False
        server.opened(self)

    @property
    def last_request(self) -> bool:
        """True for the last request of this connection."""
        return self._unread or self._requests >= _MAX_REQUESTS

    @property
    def held(self) -> int:
        """The number of bytes in memory for this client."""
        if self._phase is _Phase.TAKING:
            return len(self.wfile.data) - self._sent
        return self._buffer.size if self._phase is _Phase.REQUEST else 0

    def advance(self) -> Arrived:
        """Read the bytes that have come, or send the bytes that the client takes now."""
        if not self._cut and time.monotonic() > self.deadline:
            self.expire()
            return Arrived.GONE
        taking = self._phase is _Phase.TAKING
        self.interest = selectors.EVENT_READ
        try:
            self.socket.settimeout(0)
            return Arrived.GONE if self._cut else self._step()
        except ssl.SSLWantReadError:
            return Arrived.PART
        except (BlockingIOError, ssl.SSLWantWriteError) as ex:
            if taking or isinstance(ex, ssl.SSLWantWriteError):
                self.interest = selectors.EVENT_WRITE
            return Arrived.PART
        except (OSError, ValueError):  # the client has gone, or its TLS is absent or broken
            return Arrived.GONE

    def expire(self) -> None:
        """End a connection whose time is over: 408 in the middle of a request, a reset to a slow reader."""
        if self._phase is _Phase.TAKING:
            self.cut()
        elif self._phase is _Phase.REQUEST and self._buffer.begun and not self._handshake:
            body = b'{"message": "Request Timeout", "code": "408 Request Timeout", "title": "Request Timeout"}'
            with contextlib.suppress(OSError, ValueError):
                self.socket.settimeout(0)
                self.socket.send(
                    b"HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\nConnection: close\r\n"
                    b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
                )
        self._unread = False

    def cut(self) -> None:
        """Break the connection off: unsent bytes are dropped. The loop then sees its end and closes it."""
        self._cut = True
        self._unread = False
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def abandoned(self) -> bool:
        """Return True where the client has gone while its request waited for a worker.

        A client may close its sending side and still read. So the client counts as gone only after a second in the
        queue.
        """
        if self._cut or time.monotonic() - self._queued < _PATIENCE:
            return self._cut
        try:  # of the bare socket: an SSLSocket takes no flags
            return not socket.socket.recv(self.socket, 1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def communicate(self) -> bool:
        """Answer the request; True where the connection goes back to the loop."""
        self._keep = bool(super().communicate())
        self.rfile = _Whole()
        self._phase, self._sent = _Phase.TAKING, 0
        now = time.monotonic()
        self.began, self.deadline = now, now + self.server.request_timeout
        if not self.server.ready:
            self._last_words()
            return False
        return self.advance() is Arrived.PART

    def close(self) -> None:
        """Close; after an early refusal first read the rest, because a reset would destroy the answer."""
        if self._unread and self._phase is not _Phase.EBB and not self._cut:
            self._phase, self._unread = _Phase.EBB, False
            self.interest, self.deadline = selectors.EVENT_READ, time.monotonic() + _EBB
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_WR)
                self.server.put_conn(self)
                return
        self.server.closed(self)
        super().close()
        # The buffers go now, because cheroot's connections are in reference cycles: the memory would wait for gc.
        self._buffer, self.rfile, self.wfile = RequestBuffer(self.limits), _Whole(), _Answer()

    def _step(self) -> Arrived:
        if self._phase is _Phase.TAKING:
            return self._hand_out()
        if self._phase is _Phase.EBB:
            return Arrived.PART if self.socket.recv(_READ) else Arrived.GONE
        return self._read(time.monotonic())

    def _read(self, now: float) -> Arrived:
        if self._handshake:
            self.socket.do_handshake()
            self._handshake = False
        while True:
            data = self.socket.recv(_READ)
            if not data:
                if not self._buffer.begun:
                    return Arrived.GONE
                self._buffer.give_up()
                return self._hand_over(now)
            if self.began is None:
                self.began, self.deadline = now, now + self.server.request_timeout
            if self._buffer.feed(data):
                return self._hand_over(now)
            if self._buffer.wants_continue():
                self.socket.send(_CONTINUE)

    def _hand_over(self, now: float) -> Arrived:
        self.rfile = _Whole(self._buffer.take())
        self.rfile.broken = self._buffer.broken
        self.reserved = self._buffer.path in self.server.reserved_paths
        self.wfile = _Answer()
        self._unread = self._buffer.unread
        self._requests += 1
        self._buffer = RequestBuffer(self.limits)
        self._phase = _Phase.WORKER
        self.began, self._queued = None, now
        return Arrived.WHOLE

    def _hand_out(self) -> Arrived:
        """Send the bytes that the client takes now; return PART also for a kept connection after its answer."""
        while self._sent < len(self.wfile.data):
            with memoryview(self.wfile.data) as view:
                self._sent += self.socket.send(view[self._sent :])
        self.wfile = _Answer()
        if not self._keep:
            return Arrived.GONE
        self._phase, self.began = _Phase.REQUEST, None
        self.deadline = time.monotonic() + self.server.timeout
        return Arrived.PART

    def _last_words(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.socket.settimeout(_LAST_WORDS)
            self.socket.sendall(self.wfile.data)
        self._unread = False
