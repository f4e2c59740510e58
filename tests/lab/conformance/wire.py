# SPDX-License-Identifier: Apache-2.0
"""One recorded request over a connection of its own, as recorded, and the headers of its answer one by one."""

import contextlib
import http.client
import socket
from typing import Final

from tests.lab.conformance.exchange import Answer, Request
from tests.lab.conformance.judge import NoAnswerError

_SECONDS: Final = 30.0
_FRAMING: Final = frozenset({"content-length", "transfer-encoding"})


def send(request: Request, *, host: str, port: int, authority: str) -> Answer:
    """Send to `host`:`port` under the Host header `authority`; raises NoAnswerError."""
    try:
        with socket.create_connection((host, port), timeout=_SECONDS) as connection:
            with contextlib.suppress(OSError):  # an early answer, as a 413 is, may end the sending
                connection.sendall(encoded(request, authority))
            return _read(connection, request.method)
    except (OSError, http.client.HTTPException) as ex:
        raise NoAnswerError(f"no answer: {ex!r}") from ex


def encoded(request: Request, authority: str) -> bytes:
    """The request as it goes out: the recorded headers in order; framing and Host where they were left out."""
    names = {name.lower() for name, _ in request.headers}
    headers = [*request.headers]
    if "host" not in names:
        headers.insert(0, ("Host", authority))
    if not names & _FRAMING and (request.body is not None or request.method in {"POST", "PUT", "PATCH"}):
        headers.append(("Content-Length", str(len(request.body or b""))))
    if "connection" not in names:
        headers.append(("Connection", "close"))
    head = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"{request.method} {request.path} HTTP/1.1\r\n{head}\r\n".encode("latin-1", "replace") + (
        request.body or b""
    )


def _read(connection: socket.socket, method: str) -> Answer:
    response = http.client.HTTPResponse(connection, method=method)
    response.begin()
    body = response.read()
    return Answer(
        status=response.status, headers=tuple(response.getheaders()), body=body.decode("utf-8", "replace")
    )
