# SPDX-License-Identifier: Apache-2.0
"""The Cinder stand-in answers as the recorded Cinder does: same statuses, same headers, same keys, same types."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from falcon import testing

from bridge.standin.cinder import Attachment, Fault, StandInCinder

RECORDED = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "fixtures" / "cinder29" / "rest.jsonl").read_text().splitlines()
]
OURS_ALONE = {"x-standin"}
BY_SERVER = {"connection", "content-length"}
VOLUME = "0e63d806-6fe4-4ffc-99bf-f3dd056574c0"
SERVER = "11111111-1111-4111-8111-111111111101"


def standin_for(case: Mapping[str, Any]) -> StandInCinder:
    """A stand-in in the state the recorded request met, as far as its answer tells it."""
    cinder = StandInCinder(extend_seconds=3600)
    path, answer = case["request"]["path"], case["response"]
    body = json.loads(answer["body"]) if answer["body"] else {}
    if "volume" in body:
        rows = body["volume"]["attachments"]
        cinder.add_volume(
            body["volume"]["id"],
            body["volume"]["size"],
            *[
                Attachment(id=row["attachment_id"], server_id=row["server_id"], host=row["host_name"])
                for row in rows
            ],
        )
    elif "attachment" in body or "attachments" in body:
        for row in body.get("attachments", [body.get("attachment")]):
            info = {key: value for key, value in row.get("connection_info", {}).items() if key != "attachment_id"}
            attachment = Attachment(id=row["id"], server_id=row["instance"], connection_info=info)
            cinder.add_volume(row["volume_id"], 1, attachment)
    else:
        volume_id = path.split("/")[4]
        status = re.search(r"currently ([a-z-]+)\.", answer["body"])
        size = re.search(r"current: (\d+)", answer["body"])
        cinder.add_volume(
            volume_id, int(size[1]) if size else 1, status=status[1] if status else "in-use", name="recorded"
        )
    return cinder


def kinds(value: object) -> object:
    """The form of a JSON value: keys and types, not contents."""
    if isinstance(value, dict):
        return {key: kinds(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [kinds(inner) for inner in value]
    return type(value).__name__


@pytest.mark.parametrize(
    "case", RECORDED, ids=[f"{case['request']['method']} {case['label']}" for case in RECORDED]
)
def test_the_stand_in_answers_in_the_form_of_a_recorded_cinder(case: Mapping[str, Any]) -> None:
    """Refusals to the word, other bodies by key and type."""
    request, recorded = case["request"], case["response"]
    path, _, query = request["path"].partition("?")
    answer = testing.TestClient(standin_for(case).app).simulate_request(
        request["method"],
        path,
        query_string=query,
        body=json.dumps(request["body"]) if request["body"] else "",
        headers={"OpenStack-API-Version": request["headers"]["OpenStack-API-Version"]},
    )
    assert answer.status_code == recorded["status"]
    if recorded["status"] >= 400:
        assert answer.json == json.loads(recorded["body"])
    elif recorded["body"]:
        assert kinds(answer.json) == kinds(json.loads(recorded["body"]))
    else:
        assert answer.text == ""
    ours = {name.lower() for name in answer.headers} - BY_SERVER - OURS_ALONE
    assert ours == {name.lower() for name in recorded["headers"]} - BY_SERVER
    assert answer.headers["openstack-api-version"] == recorded["headers"]["OpenStack-API-Version"]


def client(cinder: StandInCinder) -> testing.TestClient:
    return testing.TestClient(cinder.app)


def with_volume() -> StandInCinder:
    """One volume of 1 GiB, attached, with a secret in its connection data as Cinder's has."""
    cinder = StandInCinder()
    info = {"driver_volume_type": "iscsi", "auth_password": "planted-secret"}
    cinder.add_volume(VOLUME, 1, Attachment(id=SERVER, server_id=SERVER, connection_info=info))
    return cinder


@pytest.mark.parametrize(
    "path", ["/", "/v3/", f"/v3/demo/volumes/{VOLUME}", "/v3/nothing", f"/v3/demo/volumes/{SERVER}"]
)
def test_every_answer_says_what_it_is(path: str) -> None:
    """A stand-in that is taken for a Cinder would be a trap."""
    assert client(with_volume()).simulate_get(path).headers["x-standin"] == "extend-bridge"


def test_discovery_says_what_it_is() -> None:
    """Also to a person."""
    answer = client(with_volume()).simulate_get("/v3/")
    assert answer.status_code == 200
    assert "not a Cinder" in answer.json["versions"][0]["description"]


def test_an_extend_by_http_is_seen_by_the_next_get() -> None:
    """202, then the new size; the attachment stays."""
    http = client(with_volume())
    version = {"OpenStack-API-Version": "volume 3.42"}
    path = f"/v3/volumes/{VOLUME}"
    assert (
        http.simulate_post(f"{path}/action", json={"os-extend": {"new_size": 2}}, headers=version).status_code
        == 202
    )
    volume = http.simulate_get(path).json["volume"]
    assert (volume["size"], volume["status"], volume["attachments"][0]["server_id"]) == (2, "in-use", SERVER)


def test_how_a_volume_is_opened_is_told_flat_as_cinder_does() -> None:
    """cinder/db/sqlalchemy/api.py: volume_encryption_metadata_get; the id alone where the type encrypts nothing."""
    cinder = StandInCinder()
    cinder.add_volume(VOLUME, 1, encrypted=True, encryption={"encryption_key_id": SERVER, "provider": "luks2"})
    cinder.add_volume(SERVER, 1)
    client = testing.TestClient(cinder.app)
    told = client.simulate_get(f"/v3/p/volumes/{VOLUME}/encryption").json
    assert told.keys() == {"encryption_key_id", "control_location", "cipher", "key_size", "provider"}
    assert (told["encryption_key_id"], told["provider"]) == (SERVER, "luks2")
    assert client.simulate_get(f"/v3/p/volumes/{SERVER}/encryption").json == {"encryption_key_id": None}
    absent = client.simulate_get("/v3/p/volumes/00000000-0000-4000-8000-000000000000/encryption")
    assert (absent.status_code, absent.json["itemNotFound"]["code"]) == (404, 404)


def test_attachments_begin_with_3_27() -> None:
    """Below, the path is unknown; the default is 3.0."""
    http = client(with_volume())
    path = f"/v3/demo/attachments/{SERVER}"
    assert http.simulate_get(path).status_code == 404
    assert http.simulate_get(path, headers={"OpenStack-API-Version": "volume 3.26"}).status_code == 404
    found = http.simulate_get(path, headers={"OpenStack-API-Version": "volume 3.27"})
    assert found.json["attachment"]["connection_info"]["auth_password"] == "planted-secret"


@pytest.mark.parametrize(
    "path", [f"/v3/demo/volumes/{SERVER}", f"/v3/demo/attachments/{VOLUME}", "/v3/demo/servers"]
)
def test_what_is_not_there_is_item_not_found(path: str) -> None:
    """As Cinder."""
    answer = client(with_volume()).simulate_get(path, headers={"OpenStack-API-Version": "volume 3.71"})
    assert (answer.status_code, list(answer.json)) == (404, ["itemNotFound"])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"os-extend": 3}',
        b'{"os-extend": {"new_size": "2"}}',
        b'{"os-extend": {"new_size": true}}',
    ],
)
def test_a_bad_action_is_400(body: bytes) -> None:
    """And changes nothing."""
    cinder = with_volume()
    assert client(cinder).simulate_post(f"/v3/demo/volumes/{VOLUME}/action", body=body).status_code == 400
    assert cinder.volumes.get(VOLUME).size == 1


def test_in_use_volumes_are_paged() -> None:
    """For reconciliation: by status, limit and marker, with a next link."""
    cinder = StandInCinder()
    ids = sorted(f"0e63d806-6fe4-4ffc-99bf-f3dd0565740{n}" for n in range(5))
    for number, volume_id in enumerate(ids):
        cinder.add_volume(volume_id, 1, status="in-use" if number else "available")
    http, seen, query = client(cinder), [], "status=in-use&limit=2"
    while query:
        page = http.simulate_get("/v3/demo/volumes/detail", query_string=query).json
        seen += [volume["id"] for volume in page["volumes"]]
        query = page["volumes_links"][0]["href"].partition("?")[2] if "volumes_links" in page else ""
    assert seen == ids[1:]


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (Fault.INTERNAL, 500),
        (Fault.UNAVAILABLE, 503),
        (Fault.UNAUTHORIZED, 401),
        (Fault.FORBIDDEN, 403),
        (Fault.TOO_MANY, 429),
    ],
)
def test_it_fails_as_told_as_often_as_told_and_counts(fault: Fault, status: int) -> None:
    """Then it works again."""
    cinder = with_volume()
    cinder.fail(fault, times=2)
    path = f"/v3/demo/volumes/{VOLUME}"
    assert [client(cinder).simulate_get(path).status_code for _ in range(3)] == [status, status, 200]
    assert cinder.requests["GET", path] == 3


def test_a_fault_makes_the_stand_in_break_off_its_json() -> None:
    """200, and no JSON."""
    cinder = with_volume()
    cinder.fail(Fault.BAD_JSON)
    answer = client(cinder).simulate_get(f"/v3/demo/volumes/{VOLUME}")
    assert answer.status_code == 200
    with pytest.raises(ValueError, match="Expecting"):
        json.loads(answer.text)


@contextmanager
def served(cinder: StandInCinder) -> Iterator[str]:
    """The stand-in at a port of its own."""
    server = cinder.server()
    server.start()
    try:
        yield server.url
    finally:
        cinder.fail(None)
        server.stop()
        assert server.join(120)


def test_it_hangs_until_told_to_go_on() -> None:
    """The caller's time-out is what ends it; the next request is answered."""
    cinder = with_volume()
    with served(cinder) as url:
        cinder.fail(Fault.HANG)
        with pytest.raises(requests.exceptions.ReadTimeout):
            requests.get(f"{url}/v3/demo/volumes/{VOLUME}", timeout=0.3)
        cinder.fail(None)
        answer = requests.get(f"{url}/v3/demo/volumes/{VOLUME}", timeout=120)
    assert answer.json()["volume"]["size"] == 1
    assert answer.headers["Server"] == "extend-bridge-cinder-standin"
