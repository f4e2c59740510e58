# SPDX-License-Identifier: Apache-2.0
"""A real Nova 34 asked where servers are: with rights, without, of servers it has and of one it never had."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from keystoneauth1.adapter import Adapter
from keystoneauth1.session import Session
from keystoneauth1.token_endpoint import Token

from bridge.core.extend import new_id
from bridge.core.reasons import Reason
from bridge.engine.nova import Deleted, NovaReader, Server, Unsure
from bridge.runtime.http_server import HttpServer, StartResponse
from tests.conftest import missing
from tests.lab.conformance.exchange import read_rows
from tests.lab.nova import RealNova
from tests.lab.paths import ROOT

pytestmark = [pytest.mark.functional, pytest.mark.timeout(600)]

ROWS = [
    {**row, "shown": True}
    for row in read_rows(ROOT / "tests" / "fixtures" / "nova34" / "rows.json").values()
    if not row["key"].startswith("bulk")
]


def no_ports(_environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """A Neutron without a port: Nova asks it for each server it shows."""
    body = json.dumps({"ports": [], "security_groups": [], "networks": [], "extensions": []}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


@pytest.fixture(scope="module")
def reader() -> Iterator[Callable[[str], NovaReader]]:
    """Of the user of a token."""
    neutron = HttpServer(
        "neutron", no_ports, host="127.0.0.1", port=0, threads=2, option="", server_name="neutron", grace=1
    )
    with ExitStack() as stack:
        stack.callback(neutron.join, 5)
        stack.callback(neutron.stop)
        neutron.start()
        try:
            running = stack.enter_context(RealNova(ROWS, neutron=neutron.url))
        except RuntimeError as ex:
            missing(f"a real Nova ({str(ex).splitlines()[0]})")
        url = f"http://127.0.0.1:{running.port}/v2.1"
        yield lambda token: NovaReader(Adapter(Session(auth=Token(url, token), timeout=60), endpoint_override=url))


def test_a_real_nova_tells_an_admin_where_servers_are(reader: Callable[[str], NovaReader]) -> None:
    """Each server of the recordings: on its host, or on none."""
    nova = reader("<admin>")
    for row in ROWS:
        if row["key"] == "nomapcell":
            continue  # being scheduled: Nova itself fails on it
        answer = nova.server(row["uuid"])
        assert isinstance(answer, Server), (row, answer)
        assert list(answer.hosts) == ([row["host"]] if row["host"] else []), row
    assert nova.server(new_id()) == Deleted()


def test_a_real_nova_hides_servers_from_users_without_rights(reader: Callable[[str], NovaReader]) -> None:
    """And a 404 to them is no word that the server is gone."""
    some = next(row["uuid"] for row in ROWS if row["host"])
    for token in ("<service>", "<demo>"):
        for server_id in (some, new_id()):
            assert reader(token).server(server_id) == Unsure(Reason.NOVA_REFUSED)
    assert reader("<unknown>").server(some) == Unsure(Reason.NOVA_REFUSED)
