# SPDX-License-Identifier: Apache-2.0
"""Who comes in, in which order the questions are asked, and who is told what."""

import pytest

from bridge.api.faults import fault
from bridge.api.identity import Identity
from tests.unit.api.fakes import PATH, Api, Tokens, event

PROJECT = "a" * 32
GOOD = {"X-Auth-Token": "good"}


class OnlyAdmin:
    """A policy."""

    def check(self, who: Identity) -> None:
        if "admin" not in who.roles:
            raise fault(403, "no")


@pytest.fixture
def api() -> Api:
    """An administrator and a member."""
    known = {
        "good": Identity(user="u1", project=PROJECT, roles=frozenset({"admin"})),
        "member": Identity(user="u2", project=PROJECT, roles=frozenset({"member"})),
    }
    return Api(auth=Tokens(known), policy=OnlyAdmin())


@pytest.mark.parametrize("path", [PATH, "/v2.1/servers", "/v2/x", "/v2.1/%2e%2e"])
def test_a_stranger_learns_nothing_of_the_paths(api: Api, path: str) -> None:
    """401 everywhere below the version, with the words keystonemiddleware has for it."""
    answer = api.client.simulate_post(path, json={})
    assert answer.status_code == 401
    assert answer.json["error"]["title"] == "Unauthorized"
    assert answer.headers["www-authenticate"].startswith("Keystone uri=")
    assert api.journal.accepted == []


@pytest.mark.parametrize("path", ["/", "/v2.1", "/v2.1/"])
def test_the_version_documents_are_open(api: Api, path: str) -> None:
    """Clients ask for them before they have a token."""
    assert api.client.simulate_get(path).status_code == 200


def test_the_policy_is_asked_after_the_schema(api: Api) -> None:
    """A member's bad body is 400, its good one 403; neither is taken."""
    member = {"X-Auth-Token": "member"}
    assert api.post({"name": "x"}, headers=member).status_code == 400
    answer = api.post(event(), headers=member)
    assert (answer.status_code, list(answer.json)) == (403, ["forbidden"])
    assert api.journal.accepted == []


@pytest.mark.parametrize(("project", "status"), [(PROJECT, 200), ("b" * 32, 400)])
def test_a_project_in_the_path_is_the_tokens(api: Api, project: str, status: int) -> None:
    """As Nova."""
    path = f"/v2.1/{project}/os-server-external-events"
    assert api.post(event(), headers=GOOD, path=path).status_code == status
