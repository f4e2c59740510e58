# SPDX-License-Identifier: Apache-2.0
"""cheroot's connection, fed without waiting: its bytes are collected in the server's own loop, handshake included.

A worker thread sees a connection only when a whole request has come. cheroot alone gives each connection to a
worker at its first byte, and does the TLS handshake in the loop that accepts: some slow senders then stop every
other one.
"""

import contextlib
import io
import socket
import ssl
import time
from enum import Enum, auto
from typing import Any, Final

from cheroot import server as cheroot_server

from bridge.http.request import Request, RequestBuffer, RequestLimits

_READ: Final = 64 * 1024
_MAX_REQUESTS: Final = 1000  # of one connection; an answer that is never read fills only so much
_EBB: Final = 2.0  # seconds the rest of a request that was refused early may come, so that the answer is heard
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_NOT_NOW: Final = (BlockingIOError, ssl.SSLWantReadError)


class Arrived(Enum):
    """What came of looking at a connection."""

    PART = auto()  # more has to come
    WHOLE = auto()  # a worker can answer
    GONE = auto()  # nothing more will come of it


class _Whole(io.BytesIO):
    """One request, as cheroot reads a socket."""

    bytes_read = 0

    def has_data(self) -> bool:
        """Nothing is ever left in it for the next request."""
        return False


class Connection(cheroot_server.HTTPConnection):
    """A client. `receive` is called by the server's loop, everything else by whoever has the connection."""

    RequestHandlerClass = Request
    limits = RequestLimits()

    def __init__(self, server: Any, sock: socket.socket, makefile: Any) -> None:
        super().__init__(server, sock, makefile)
        self.rfile = _Whole()
        self.began: float | None = time.monotonic()  # of the request that is coming; None between two
        self._intake = RequestBuffer(self.limits)
        self._handshake = isinstance(sock, ssl.SSLSocket)
        self._requests = 0
        self._unread = False
        self._ebb_until: float | None = None
        server.opened(self)

    @property
    def last_request(self) -> bool:
        """Whether the request a worker has is the last one of this connection."""
        return self._unread or self._requests >= _MAX_REQUESTS

    def receive(self, deadline: float) -> Arrived:
        """Take what has come. A request that has not come within `deadline` seconds of its begin is 408."""
        now = time.monotonic()
        if self._ebb_until is not None:
            return self._ebb(now)
        if self.late(deadline):
            self.too_slow()
            return Arrived.GONE
        self.socket.settimeout(0)
        try:
            return self._read(now)
        except _NOT_NOW:
            return Arrived.PART
        except (OSError, ValueError):  # the client went away, speaks no TLS, or speaks it wrongly
            return Arrived.GONE

    def late(self, deadline: float) -> bool:
        """Whether the request that is coming has taken more than so many seconds."""
        return self.began is not None and time.monotonic() - self.began > deadline

    def too_slow(self) -> None:
        """Say that the request has not come in time, to who has begun one."""
        if self._handshake or not self._intake.begun:
            return
        body = b'{"message": "Request Timeout", "code": "408 Request Timeout", "title": "Request Timeout"}'
        with contextlib.suppress(OSError):
            self.socket.settimeout(0)
            self.socket.send(
                b"HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\nConnection: close\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            )

    def close(self) -> None:
        """Close; after an early refusal first let the rest come, or the reset would take the answer with it."""
        if self._unread and self._ebb_until is None:
            self._ebb_until = time.monotonic() + _EBB
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError:
                self._ebb_until = 0.0
            else:
                self.server.put_conn(self)
                return
        self.server.closed(self)
        super().close()

    def _read(self, now: float) -> Arrived:
        if self._handshake:
            self.socket.do_handshake()
            self._handshake = False
        while True:
            data = self.socket.recv(_READ)
            if not data:
                if not self._intake.begun:
                    return Arrived.GONE
                self._intake.give_up()
                return self._hand_over()
            if self.began is None:
                self.began = now
            if self._intake.feed(data):
                return self._hand_over()
            if self._intake.wants_continue():
                self.socket.send(_CONTINUE)

    def _hand_over(self) -> Arrived:
        self.rfile = _Whole(self._intake.take())
        self._unread = self._intake.unread
        self._requests += 1
        self._intake = RequestBuffer(self.limits)
        self.began = None
        self.socket.settimeout(self.server.request_timeout)  # for the answer
        return Arrived.WHOLE

    def _ebb(self, now: float) -> Arrived:
        assert self._ebb_until is not None  # noqa: S101 - only called where it is set
        if now > self._ebb_until:
            return Arrived.GONE
        self.socket.settimeout(0)
        try:
            return Arrived.PART if self.socket.recv(_READ) else Arrived.GONE
        except _NOT_NOW:
            return Arrived.PART
        except (OSError, ValueError):
            return Arrived.GONE
