# SPDX-License-Identifier: Apache-2.0
"""A stand-in for Barbican: gives the payloads of the secrets it was told of, to whoever has the Keystone stand-in's
token. Requests and answers as barbicanclient 7 makes and reads them."""

import json
from typing import Any

from tests.lab.http_standin import HttpStandIn, QuietHandler
from tests.lab.keystone_standin import SERVICE_TOKEN


class Barbican(HttpStandIn):
    """`secrets`: bytes by id. `refuses`: the status of every answer, None: as it should be."""

    def __init__(self) -> None:
        self.secrets: dict[str, bytes] = {}
        self.refuses: int | None = None
        super().__init__()
        self.url = self.root

    def handler(self) -> type[QuietHandler]:
        """Answer as Barbican does."""
        standin = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:  # noqa: N802 - the name of http.server
                words = self.path.strip("/").split("/")  # v1, secrets, id, perhaps payload
                secret = standin.secrets.get(words[2]) if words[:2] == ["v1", "secrets"] else None
                if words == [""]:
                    self._reply(300, _versions(standin.url))
                elif standin.refuses is not None or self.headers["X-Auth-Token"] != SERVICE_TOKEN:
                    self._reply(standin.refuses or 401, {"title": "no", "description": "refused"})
                elif secret is None:
                    self._reply(404, {"title": "Not Found", "description": "Secret not found."})
                elif words[3:] == ["payload"]:
                    self.send(200, "application/octet-stream", secret)
                else:
                    self._reply(200, _metadata(f"{standin.url}{self.path}", len(secret) * 8))

            def _reply(self, status: int, body: Any) -> None:
                self.send(status, "application/json", json.dumps(body).encode())

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
