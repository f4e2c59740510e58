# SPDX-License-Identifier: Apache-2.0
"""A stand-in for Keystone that knows two users: for measuring what is done with a token that is already known."""

import json
import uuid
from typing import Any, Final

from tests.lab.http_standin import HttpStandIn, QuietHandler

SERVICE_TOKEN: Final = "t" * 180


class KeystoneStandIn(HttpStandIn):
    """Any password gets a token; every token is a service's."""

    def __init__(self) -> None:
        super().__init__()
        self.says: bytes | None = None  # of a token it is asked about, instead of the truth
        self.error: tuple[int, bytes] | None = None  # the answer to everything, instead of what was asked for
        self.strict = False  # whether tokens other than its own are unknown to it
        self.url = f"{self.root}/v3"
        domain = {"id": "default", "name": "Default"}
        self._token: dict[str, Any] = {
            "token": {
                "methods": ["password"],
                "user": {"id": uuid.uuid4().hex, "name": "u", "domain": domain},
                "project": {"id": uuid.uuid4().hex, "name": "service", "domain": domain},
                "roles": [{"id": uuid.uuid4().hex, "name": "service"}],
                "catalog": [
                    {
                        "id": uuid.uuid4().hex,
                        "type": "identity",
                        "name": "keystone",
                        "endpoints": [
                            {
                                "id": uuid.uuid4().hex,
                                "interface": kind,
                                "region_id": "R",
                                "region": "R",
                                "url": self.url,
                            }
                            for kind in ("public", "internal", "admin")
                        ],
                    }
                ],
                "issued_at": "2020-01-01T00:00:00.000000Z",
                "expires_at": "2999-01-01T00:00:00.000000Z",
            }
        }

    def reached_at(self, url: str) -> None:
        """Name another address as this Keystone's: a proxy in front of it."""
        self.url = url
        for endpoint in self._token["token"]["catalog"][0]["endpoints"]:
            endpoint["url"] = url

    def authtoken(self) -> str:
        """[keystone_authtoken] for an API in front of it."""
        return (
            f"[keystone_authtoken]\nauth_type = password\nauth_url = {self.url}\nusername = u\npassword = p\n"
            "user_domain_id = default\nproject_name = service\nproject_domain_id = default\n"
        )

    def handler(self) -> type[QuietHandler]:
        """Answer as Keystone does."""
        standin = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:  # noqa: N802 - the name of http.server
                if not self.path.endswith("/auth/tokens"):
                    links = [{"rel": "self", "href": f"{standin.url}/"}]
                    self._reply(200, {"version": {"id": "v3.14", "status": "stable", "links": links}})
                elif standin.strict and self.headers["X-Subject-Token"] != SERVICE_TOKEN:
                    self._reply(404, {"error": {"code": 404, "title": "Not Found", "message": "no such token"}})
                else:
                    self._reply(200, standin._token, standin.says)

            def do_POST(self) -> None:  # noqa: N802 - the name of http.server
                self.rfile.read(int(self.headers["Content-Length"]))
                self._reply(201, standin._token)

            def _reply(self, status: int, body: Any, said: bytes | None = None) -> None:
                data = json.dumps(body).encode() if said is None else said
                if standin.error is not None:
                    status, data = standin.error
                self.send(status, "application/json", data, X_Subject_Token=SERVICE_TOKEN)

        return Handler
