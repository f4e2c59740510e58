# SPDX-License-Identifier: Apache-2.0
"""A stand-in for Nova's servers over real HTTP: hosts, live migrations, cells that are down, users with few rights.

Answers as Nova 34 does at 2.69: GET /servers/{id}, GET /servers/{id}/migrations, GET /servers?all_tenants=1.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from tests.lab.http_standin import HttpStandIn, QuietHandler

_NOT_FOUND: Final = {"itemNotFound": {"code": 404, "message": "Instance could not be found."}}
_FORBIDDEN: Final = {"forbidden": {"code": 403, "message": "Policy doesn't allow it to be performed."}}


@dataclass(slots=True)
class Guest:
    """`host` None: on none. `moving_to`: a live migration is in progress. `cell_down`: its database is away."""

    host: str | None
    power: int = 1
    moving_to: str | None = None
    cell_down: bool = False


@dataclass
class NovaServers(HttpStandIn):
    """`admin`: our user may see all. `failing`: the status of every answer. `guests` may be changed at any time."""

    guests: dict[str, Guest] = field(default_factory=dict)
    admin: bool = True
    failing: int | None = None
    requests: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        """Take a port."""
        super().__init__()

    @property
    def url(self) -> str:
        """For [nova] endpoint_override."""
        return f"{self.root}/v2.1"

    def answer(self, path: str, query: str) -> tuple[int, Any]:
        """Status and body of a GET."""
        if self.failing is not None:
            return self.failing, {}
        match path.removeprefix("/v2.1/").split("/"):
            case ["servers"]:
                return (200, {"servers": []}) if self.admin or "all_tenants" not in query else (403, _FORBIDDEN)
            case ["servers", server_id, *rest] if server_id in self.guests and self.admin:
                guest = self.guests[server_id]
                return (
                    self._migrations(guest)
                    if rest == ["migrations"]
                    else (200, {"server": _view(server_id, guest)})
                )
        return 404, _NOT_FOUND

    def _migrations(self, guest: Guest) -> tuple[int, Any]:
        row = {"status": "running", "source_compute": guest.host, "dest_compute": guest.moving_to}
        return 200, {"migrations": [row] if guest.moving_to else []}

    def handler(self) -> type[QuietHandler]:
        """Answer as Nova does."""
        nova = self

        class Handler(QuietHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:  # noqa: N802 - the name of http.server
                url = urlsplit(self.path)
                nova.requests[url.path.removeprefix("/v2.1")] += 1
                status, body = nova.answer(url.path, url.query)
                data = json.dumps(body).encode()
                self.send(status, "application/json", data)

        return Handler


def _view(server_id: str, guest: Guest) -> dict[str, Any]:
    """The keys of a server that count here; of a cell that is down Nova shows these few."""
    few = {"id": server_id, "tenant_id": "t", "created": "2026-01-01T00:00:00Z", "links": []}
    if guest.cell_down:
        return {**few, "status": "UNKNOWN"}
    return {
        **few,
        "status": "MIGRATING" if guest.moving_to else "ACTIVE",
        "OS-EXT-SRV-ATTR:host": guest.host,
        "OS-EXT-STS:power_state": guest.power,
        "OS-EXT-STS:task_state": "migrating" if guest.moving_to else None,
    }
