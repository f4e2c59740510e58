# SPDX-License-Identifier: Apache-2.0
"""A real Nova 34 asked where servers are: with rights, without, of servers it has and of one it never had."""

from collections.abc import Callable

import pytest
from keystoneauth1.adapter import Adapter
from keystoneauth1.session import Session
from keystoneauth1.token_endpoint import Token

from bridge.core.extend import new_id
from bridge.core.reasons import Reason
from bridge.engine.nova import Deleted, NovaReader, Server, Unsure
from bridge.runtime.rest import RestClient
from tests.functional.wire.conftest import ROWS
from tests.lab.nova import RealNova

pytestmark = pytest.mark.functional

SHOWN = [row for row in ROWS.values() if not row["key"].startswith("bulk")]


@pytest.fixture
def reader(nova: RealNova) -> Callable[[str], NovaReader]:
    """Of the user of a token."""
    url = f"http://127.0.0.1:{nova.port}/v2.1"
    return lambda token: NovaReader(
        RestClient(Adapter(Session(auth=Token(url, token)), endpoint_override=url), timeout=60, group="nova")
    )


def test_a_real_nova_tells_an_admin_where_servers_are(reader: Callable[[str], NovaReader]) -> None:
    """Each server of the recordings: on its host, or on none."""
    nova = reader("<admin>")
    for row in SHOWN:
        if row["key"] == "nomapcell":
            continue  # being scheduled: Nova itself fails on it
        answer = nova.server(row["uuid"])
        assert isinstance(answer, Server), (row, answer)
        assert list(answer.hosts) == ([row["host"]] if row["host"] else []), row
    assert nova.server(new_id()) == Deleted()


def test_a_real_nova_hides_servers_from_users_without_rights(reader: Callable[[str], NovaReader]) -> None:
    """And a 404 to them is no word that the server is gone."""
    some = next(row["uuid"] for row in SHOWN if row["host"])
    for token in ("<service>", "<demo>"):
        for server_id in (some, new_id()):
            assert reader(token).server(server_id) == Unsure(Reason.NOVA_REFUSED)
    assert reader("<unknown>").server(some) == Unsure(Reason.NOVA_REFUSED)
