# SPDX-License-Identifier: Apache-2.0
"""A stand-in for Barbican: gives the payloads of the secrets it was told of, to whoever has the Keystone stand-in's
token. Requests and answers as barbicanclient 7 makes and reads them."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from tests.lab.keystone_standin import SERVICE_TOKEN


class Barbican:
    """`secrets`: bytes by id. `refuses`: the status of every answer, None: as it should be."""

    def __init__(self) -> None:
        self.secrets: dict[str, bytes] = {}
        self.refuses: int | None = None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        standin = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                words = self.path.strip("/").split("/")  # v1, secrets, id, perhaps payload
                secret = standin.secrets.get(words[2]) if words[:2] == ["v1", "secrets"] else None
                if words == [""]:
                    self._reply(300, _versions(standin.url))
                elif standin.refuses is not None or self.headers["X-Auth-Token"] != SERVICE_TOKEN:
                    self._reply(standin.refuses or 401, {"title": "no", "description": "refused"})
                elif secret is None:
                    self._reply(404, {"title": "Not Found", "description": "Secret not found."})
                elif words[3:] == ["payload"]:
                    self._send(200, "application/octet-stream", secret)
                else:
                    self._reply(200, _metadata(f"{standin.url}{self.path}", len(secret) * 8))

            def _reply(self, status: int, body: Any) -> None:
                self._send(status, "application/json", json.dumps(body).encode())

            def _send(self, status: int, kind: str, data: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """Nothing on the terminal."""

        return Handler


def _versions(url: str) -> dict[str, Any]:
    links = [{"rel": "self", "href": f"{url}/v1/"}]
    version = {"id": "v1", "status": "CURRENT", "min_version": "1.0", "max_version": "1.1", "links": links}
    return {"versions": [version]}


def _metadata(ref: str, bits: int) -> dict[str, Any]:
    return {
        "status": "ACTIVE",
        "secret_type": "symmetric",
        "secret_ref": ref,
        "name": None,
        "created": "2026-01-01T00:00:00",
        "updated": "2026-01-01T00:00:00",
        "expiration": None,
        "algorithm": "aes",
        "bit_length": bits,
        "mode": None,
        "creator_id": "c",
        "content_types": {"default": "application/octet-stream"},
    }
