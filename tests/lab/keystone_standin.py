# SPDX-License-Identifier: Apache-2.0
"""A stand-in for Keystone that knows two users: for measuring what is done with a token that is already known."""

import copy
import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tests.lab.http_standin import HttpStandIn, QuietHandler

SERVICE_TOKEN: Final = "t" * 180


class KeystoneStandIn(HttpStandIn):
    """Any password gets a token; every token is a service's.

    `token_seconds`: each password gets a token of its own that lives for so long; None: always the same one. The
    catalogue then names the address that a request came to, so that a proxy in front of it is not left out.
    """

    def __init__(self, *, token_seconds: float | None = None) -> None:
        self._token_seconds = token_seconds
        super().__init__()
        self._expires: dict[str, str] = {}
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

    def _issue(self) -> str:
        """Return a token for a password."""
        if self._token_seconds is None:
            return SERVICE_TOKEN
        token = uuid.uuid4().hex * 4
        ends = datetime.now(UTC) + timedelta(seconds=self._token_seconds)
        self._expires[token] = ends.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return token

    def _record(self, token: str, host: str) -> dict[str, Any]:
        """Return what Keystone says of a token."""
        if self._token_seconds is None:
            return self._token
        record = copy.deepcopy(self._token)
        record["token"]["expires_at"] = self._expires.get(token, record["token"]["expires_at"])
        for endpoint in record["token"]["catalog"][0]["endpoints"]:
            endpoint["url"] = f"http://{host}/v3"
        return record

    def handler(self) -> type[QuietHandler]:
        """Answer as Keystone does."""
        standin = self

        class Handler(QuietHandler):
            protocol_version = "HTTP/1.0" if self._token_seconds is None else "HTTP/1.1"  # 1.1 keeps connections

            def do_GET(self) -> None:  # noqa: N802 - the name of http.server
                if not self.path.endswith("/auth/tokens"):
                    url = f"http://{self.headers['Host']}/v3" if standin._token_seconds else standin.url
                    links = [{"rel": "self", "href": f"{url}/"}]
                    self._reply(200, {"version": {"id": "v3.14", "status": "stable", "links": links}})
                elif standin.strict and self.headers["X-Subject-Token"] != SERVICE_TOKEN:
                    self._reply(404, {"error": {"code": 404, "title": "Not Found", "message": "no such token"}})
                else:
                    token = self.headers["X-Subject-Token"] or ""
                    self._reply(200, standin._record(token, self.headers["Host"]), standin.says)

            def do_POST(self) -> None:  # noqa: N802 - the name of http.server
                self.rfile.read(int(self.headers["Content-Length"]))
                token = standin._issue()
                self._reply(201, standin._record(token, self.headers["Host"]), token=token)

            def _reply(
                self, status: int, body: Any, said: bytes | None = None, *, token: str = SERVICE_TOKEN
            ) -> None:
                data = json.dumps(body).encode() if said is None else said
                if standin.error is not None:
                    status, data = standin.error
                self.send(status, "application/json", data, X_Subject_Token=token)

        return Handler
