# SPDX-License-Identifier: Apache-2.0
"""Links and addresses behind a proxy, where the operator says that there is one."""

from pathlib import Path

import falcon
import pytest
from falcon import testing

from bridge.api.identity import Identity
from bridge.api.middleware import behind_proxy
from bridge.runtime import config
from tests.unit.api.fakes import PATH, Api, event

FORWARDED = {
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "compute.example.org",
    "X-Forwarded-For": "198.51.100.7",
    "X-Forwarded-Prefix": "/compute",
}


class Seen:
    """Notes where callers come from."""

    def __init__(self) -> None:
        self.addresses: list[str] = []

    def authenticate(self, req: falcon.Request) -> Identity:
        self.addresses.append(req.remote_addr)
        return Identity(user="u")


def client(where: Path, seen: Seen, *lines: str) -> testing.TestClient:
    file = where / "x.conf"
    file.write_text("\n".join(lines))
    conf = config.load("x", [], ["--config-file", str(file)], description="x")
    app = behind_proxy(Api(auth=seen).app, conf)
    # falcon asks an application for its signature, which a wrapped one does not have
    return testing.TestClient(lambda environ, start_response: app(environ, start_response))  # noqa: PLW0108


@pytest.mark.parametrize(
    ("lines", "link", "address"),
    [
        ((), "http://falconframework.org/v2.1/", "127.0.0.1"),
        (
            ("[oslo_middleware]", "enable_proxy_headers_parsing = true"),
            "https://compute.example.org/compute/v2.1/",
            "198.51.100.7",
        ),
    ],
    ids=["nobody said so", "switched on"],
)
def test_headers_of_a_proxy_count_where_there_is_one(
    tmp_path: Path, lines: tuple[str, ...], link: str, address: str
) -> None:
    """From anybody else they are made up."""
    seen = Seen()
    api = client(tmp_path, seen, *lines)
    document = api.simulate_get("/v2.1", headers=FORWARDED).json
    assert document["version"]["links"][0]["href"] == link
    answer = api.simulate_post(
        PATH, json={"events": [event()]}, headers={**FORWARDED, "OpenStack-API-Version": "compute 2.51"}
    )
    assert (answer.status_code, seen.addresses) == (200, [address])
