# SPDX-License-Identifier: Apache-2.0
"""A Nova that the engines ask where a server is: one host for each, as the load has it."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from tests.lab.http_standin import HttpStandIn, QuietHandler

_RUNNING: Final = 1


class NovaSide(HttpStandIn):
    """GET /v2.1/servers and /v2.1/servers/{id}. `hosts`: the host of each server."""

    def __init__(self, hosts: Mapping[str, str]) -> None:
        super().__init__()
        self.hosts = hosts
        self.url = f"{self.root}/v2.1"

    def handler(self) -> type[QuietHandler]:
        """Answer as Nova does."""
        standin = self

        class Handler(QuietHandler):
            protocol_version = "HTTP/1.1"  # kept connections are what freezes

            def do_GET(self) -> None:  # noqa: N802 - the name of http.server
                server_id = self.path.partition("?")[0].removeprefix("/v2.1/servers").strip("/")
                if not server_id:
                    self._reply(HTTPStatus.OK, {"servers": []})
                elif (host := standin.hosts.get(server_id)) is None:
                    self._reply(HTTPStatus.NOT_FOUND, {"itemNotFound": {"code": 404, "message": "no such server"}})
                else:
                    self._reply(HTTPStatus.OK, {"server": _server(server_id, host)})

            def _reply(self, status: HTTPStatus, body: object) -> None:
                self.send(status.value, "application/json", json.dumps(body).encode())

        return Handler


def _server(server_id: str, host: str) -> dict[str, object]:
    return {
        "id": server_id,
        "status": "ACTIVE",
        "OS-EXT-SRV-ATTR:host": host,
        "OS-EXT-STS:power_state": _RUNNING,
        "OS-EXT-STS:task_state": None,
    }
