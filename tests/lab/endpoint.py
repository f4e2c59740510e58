# SPDX-License-Identifier: Apache-2.0
"""An endpoint over real HTTP that records what it is sent and answers as a test tells it to, also badly."""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self

PATH: Final = "/v2.1/os-server-external-events"

Event = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What goes over the wire; `length` is what the header claims instead of the truth, `drip` seconds per byte."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None
    drip: float = 0.0


Behaviour = Callable[[Sequence[Event]], Reply]


def answered(events: Sequence[Event], code: Callable[[Event], int] = lambda _: 200) -> Reply:
    """As Nova does: 200 when all went well, else 207, a code for each event."""
    rows = [{**event, "status": "completed", "code": code(event)} for event in events]
    status = 200 if all(row["code"] == 200 for row in rows) else 207
    return Reply(status=status, body=json.dumps({"events": rows}).encode())


def takes_all(events: Sequence[Event]) -> Reply:
    """200 for each event."""
    return answered(events)


def says(code: int) -> Behaviour:
    """The same code for each event."""
    return lambda events: answered(events, lambda _: code)


def refuses(status: int, **headers: str) -> Behaviour:
    """The whole request, always."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: Reply(status=status, headers=named)


class RecordingEndpoint:
    """Listens on a port of its own. `behaviour` may be replaced at any time; nothing is answered while `gate` is
    clear.
    """

    def __init__(self) -> None:
        self.behaviour: Behaviour = takes_all
        self.requests: list[tuple[Mapping[str, str], Sequence[Event]]] = []
        self.gate = threading.Event()
        self.gate.set()
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self._port = 0
        self.open()

    @property
    def url(self) -> str:
        """For [endpoint] endpoint_override."""
        return f"http://127.0.0.1:{self._port}/v2.1"

    @property
    def events(self) -> list[tuple[str, str]]:
        """(server, volume) of every event of every request, in order."""
        return [(event["server_uuid"], event["tag"]) for _, events in list(self.requests) for event in events]

    def open(self) -> None:
        """Listen; on the port it had before, if it had one."""
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), self._handler())
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Refuse connections."""
        if self._server is not None and self._thread is not None:
            self.gate.set()
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                events = body["events"] if self.path == PATH else []
                endpoint.requests.append((dict(self.headers), events))
                endpoint.gate.wait()
                self._reply(endpoint.behaviour(events))

            def _reply(self, reply: Reply) -> None:
                self.send_response(reply.status)
                headers = {"Content-Type": "application/json", **reply.headers}
                headers["Content-Length"] = str(len(reply.body) if reply.length is None else reply.length)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    self._write(reply)
                except OSError:
                    return  # the other side has had enough

            def _write(self, reply: Reply) -> None:
                if not reply.drip:
                    self.wfile.write(reply.body)
                    return
                pause = threading.Event()
                for n in range(len(reply.body)):
                    self.wfile.write(reply.body[n : n + 1])
                    pause.wait(reply.drip)

            def log_message(self, *_: Any) -> None:
                """Nothing on the terminal."""

        return Handler
