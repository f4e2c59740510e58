# SPDX-License-Identifier: Apache-2.0
"""The ops port."""

import json
from collections.abc import Iterator

import pytest
import requests

from bridge.core.errors import ConfigError
from bridge.runtime.config import OpsSettings
from bridge.runtime.health import Health
from bridge.runtime.metrics import new_registry
from bridge.runtime.ops import OpsServer


@pytest.fixture
def health() -> Health:
    """Checks of a daemon."""
    return Health()


@pytest.fixture
def url(health: Health) -> Iterator[str]:
    """A served ops port."""
    server = OpsServer(OpsSettings(host="127.0.0.1", port=0), health, new_registry("test"))
    server.start()
    yield f"http://127.0.0.1:{server.port}"
    server.stop()
    assert server.join(120)


def test_not_ready_is_503_with_each_reason_and_ready_is_200(url: str, health: Health) -> None:
    health.bad("broker", "connection refused")
    answer = requests.get(f"{url}/healthz/ready", timeout=120)
    assert answer.status_code == 503
    assert json.loads(answer.text)["checks"]["broker"] == {"ok": False, "reason": "connection refused"}
    assert requests.get(f"{url}/healthz/live", timeout=120).status_code == 200
    health.ok("broker")
    assert requests.get(f"{url}/healthz/ready", timeout=120).status_code == 200


def test_metrics_carry_the_build(url: str) -> None:
    assert 'extend_bridge_build_info{part="test"' in requests.get(f"{url}/metrics", timeout=120).text


def test_an_unknown_path_says_what_there_is(url: str) -> None:
    answer = requests.get(f"{url}/x", timeout=120)
    assert (answer.status_code, "/healthz/ready" in answer.text) == (404, True)


def test_a_taken_port_is_one_clear_line(url: str) -> None:
    port = int(url.rpartition(":")[2])
    with pytest.raises(ConfigError, match=f"127.0.0.1:{port} cannot be used"):
        OpsServer(OpsSettings(host="127.0.0.1", port=port), Health(), new_registry("other"))
