# SPDX-License-Identifier: Apache-2.0
"""The clients people have, unchanged, against a running API: python-novaclient, keystoneauth, openstacksdk."""

from typing import Any

import openstack
import pytest
from keystoneauth1 import discover
from keystoneauth1 import exceptions as ks
from keystoneauth1.adapter import Adapter
from keystoneauth1.session import Session
from keystoneauth1.token_endpoint import Token
from novaclient import api_versions, client
from novaclient import exceptions as nova

from tests.lab.conformance.site import Site
from tests.unit.api.fakes import NO_HOST, ON_HOST, UNKNOWN, event

pytestmark = pytest.mark.functional


def session(site: Site, token: str = "<admin>", path: str = "/v2.1") -> Session:
    """As with an endpoint from the catalogue, and a token."""
    return Session(auth=Token(f"http://127.0.0.1:{site.port}{path}", token), timeout=10)


def novaclient(site: Site, version: str = "2.51", **more: Any) -> client.Client:
    """As Cinder makes its own (cinder/compute/nova.py)."""
    return client.Client(version, session=session(site, **more))


@pytest.mark.parametrize("path", ["/v2.1", "/v2.1/", "/v2.1/" + "a" * 32])
def test_novaclient_creates_events(site: Site, path: str) -> None:
    """A list of events with their codes, whatever becomes of them; also with a project in the endpoint."""
    events = [event(), event(UNKNOWN), event(NO_HOST)]
    answered = novaclient(site, path=path).server_external_events.create(events)
    assert [(row["server_uuid"], row["status"], row["code"]) for row in answered] == [
        (ON_HOST, "completed", 200),
        (UNKNOWN, "failed", 404),
        (NO_HOST, "failed", 422),
    ]


def test_novaclient_understands_refusals(site: Site) -> None:
    """Each as the exception it has for it, in Nova's words."""
    with pytest.raises(nova.BadRequest, match="'nope' is not one of"):
        novaclient(site).server_external_events.create([event(name="nope")])
    with pytest.raises(nova.BadRequest, match="'volume-extended' is not one of"):
        novaclient(site, "2.50").server_external_events.create([event()])
    with pytest.raises(nova.NotAcceptable, match=r"Version 2\.52 is not supported by the API"):
        novaclient(site, "2.52").server_external_events.create([event()])
    with pytest.raises((nova.Unauthorized, ks.Unauthorized)):
        novaclient(site, token="nobody").server_external_events.create([event()])
    with pytest.raises(nova.OverLimit):
        novaclient(site).server_external_events.create([event()] * 1000)


def test_novaclient_discovers_the_version(site: Site) -> None:
    """`2.latest` is what both sides know."""
    found = api_versions.discover_version(novaclient(site), api_versions.APIVersion("2.latest"))
    assert found.get_string() == "2.51"


@pytest.mark.parametrize("path", ["", "/", "/v2.1", "/v2.1/", "/v2.1/" + "a" * 32])
def test_keystoneauth_discovers_the_versions(site: Site, path: str) -> None:
    """From any of the endpoints a catalogue may have."""
    adapter = Adapter(session(site, path=path), service_type="compute", min_version="2.1", max_version="2.latest")
    found = adapter.get_endpoint_data()
    assert found is not None
    assert (found.api_version, found.min_microversion, found.max_microversion) == ((2, 1), (2, 1), (2, 51))
    assert discover.Discover(session(site), f"http://127.0.0.1:{site.port}/").url_for((2, 1)) == (
        f"http://127.0.0.1:{site.port}/v2.1/"
    )


def test_keystoneauth_posts_with_a_microversion(site: Site) -> None:
    """Both headers are its own doing."""
    adapter = Adapter(session(site), service_type="compute", default_microversion="2.51")
    answered = adapter.post("/os-server-external-events", json={"events": [event()]})
    assert answered.status_code == 200
    assert answered.headers["OpenStack-API-Version"] == "compute 2.51"
    assert answered.headers["x-openstack-request-id"].startswith("req-")
    with pytest.raises(ks.BadRequest) as refused:
        adapter.post("/os-server-external-events", json={})
    assert refused.value.request_id


def test_openstacksdk_finds_and_calls_it(site: Site) -> None:
    """By its own discovery of the compute service."""
    cloud = openstack.connect(
        auth_type="admin_token",
        auth={"endpoint": f"http://127.0.0.1:{site.port}/v2.1", "token": "<admin>"},
        load_yaml_config=False,
        load_envvars=False,
    )
    found = cloud.compute.get_endpoint_data()
    assert (found.min_microversion, found.max_microversion) == ((2, 1), (2, 51))
    answered = cloud.compute.post("/os-server-external-events", json={"events": [event()]}, microversion="2.51")
    assert [row["code"] for row in answered.json()["events"]] == [200]
