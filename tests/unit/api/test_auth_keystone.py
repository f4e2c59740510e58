# SPDX-License-Identifier: Apache-2.0
"""What keystonemiddleware makes of a Keystone that answers, but not as one: nobody knows who calls, for now."""

from collections.abc import Iterator
from pathlib import Path

import falcon
import pytest
from falcon.testing import create_req
from oslo_config import cfg

from bridge.api.auth_keystone import Keystone
from bridge.api.faults import FaultError
from tests.lab.keystone_standin import SERVICE_TOKEN, KeystoneStandIn


@pytest.fixture
def standin() -> Iterator[KeystoneStandIn]:
    with KeystoneStandIn() as running:
        yield running


@pytest.fixture
def auth(standin: KeystoneStandIn, tmp_path: Path) -> Keystone:
    file = tmp_path / "api.conf"
    file.write_text(standin.authtoken())
    conf = cfg.ConfigOpts()
    conf(["--config-file", str(file)], project="extend-bridge")
    return Keystone(conf)


def request() -> falcon.Request:
    req = create_req(headers={"X-Auth-Token": SERVICE_TOKEN})
    req.context.request_id = "req-1"
    return req


@pytest.mark.parametrize(
    "says",
    [
        b"<html>down for maintenance</html>",
        b"",
        b"[]",
        b"1",
        b"{}",
        b'{"token": {}}',
        b'{"token": null}',
        b'{"token": {"expires_at": "2999-01-01T00:00:00Z"}}',
        b'{"token": {"expires_at": "never", "user": 1}}',
    ],
)
def test_an_answer_that_is_none_of_keystones_is_503_until_it_is_back(
    standin: KeystoneStandIn, auth: Keystone, says: bytes
) -> None:
    """As of a proxy before it. A 500 would be held against the events, and park them in the end."""
    standin.says = says
    with pytest.raises(FaultError) as refused:
        auth.authenticate(request())
    assert refused.value.status == 503
    assert refused.value.headers["Retry-After"]
    standin.says = None
    assert auth.authenticate(request()).roles == {"service"}
