# SPDX-License-Identifier: Apache-2.0
"""A real API process and a real Nova, both with the servers of the recordings and the lab's tokens."""

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from bridge.http.server import HttpServer, StartResponse
from tests.conftest import missing
from tests.lab.conformance.exchange import read_rows
from tests.lab.conformance.site import Site
from tests.lab.nova import RealNova
from tests.lab.paths import ROOT

ROWS = read_rows(ROOT / "tests" / "fixtures" / "nova34" / "rows.json")
TOKENS = {
    "<admin>": {"project_id": "a" * 32, "roles": ["admin"]},
    "<service>": {"project_id": "b" * 32, "roles": ["service"]},
    "<demo>": {"project_id": "c" * 32, "roles": ["member"]},
}


def no_ports(_environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """A Neutron without a port: Nova asks it for each server it shows."""
    body = json.dumps({"ports": [], "security_groups": [], "networks": [], "extensions": []}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


@pytest.fixture(scope="session")
def nova() -> Iterator[RealNova]:
    """Once, for it takes most of a minute to set up. It can show its servers one by one, but for the many."""
    rows = [{**row, "shown": not row["key"].startswith("bulk")} for row in ROWS.values()]
    neutron = HttpServer(
        "neutron", no_ports, host="127.0.0.1", port=0, threads=2, option="", server_name="neutron", grace=1
    )
    with ExitStack() as stack:
        stack.callback(neutron.join, 5)
        stack.callback(neutron.stop)
        neutron.start()
        try:
            running = stack.enter_context(RealNova(rows, neutron=neutron.url))
        except RuntimeError as ex:
            missing(f"a real Nova ({str(ex).splitlines()[0]})")
        yield running


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Running until the module's tests end."""
    with Site(tmp_path_factory.mktemp("site"), ROWS, TOKENS) as running:
        yield running
