# SPDX-License-Identifier: Apache-2.0
"""Beside Nova: who is told again and who is not, and what Nova's answers mean; over HTTP against a stand-in."""

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from keystoneauth1.adapter import Adapter
from keystoneauth1.session import Session
from keystoneauth1.token_endpoint import Token

from bridge.core.extend import ExtendKey, new_id
from bridge.core.reasons import Reason
from bridge.engine.renotify import NOVA_EVENTS, Renotifier, read_answer
from bridge.engine.upstream import Trouble
from bridge.journal.states import Extend
from bridge.runtime.audit import StreamAudit
from bridge.runtime.health import Health
from bridge.runtime.rest import Answer, NovaEventsClient, RestClient
from tests.lab.endpoint import RecordingEndpoint, answered, refuses, says
from tests.lab.slow_server import Slowness, SlowServer


@dataclass
class Rig:
    """A prompter and its Nova."""

    nova: RecordingEndpoint
    prompt: Renotifier
    health: Health
    audit: Path


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """Nova takes everything."""
    with RecordingEndpoint() as nova:
        health, audit = Health(), tmp_path / "audit.log"
        adapter = Adapter(Session(auth=Token(nova.url, "t"), timeout=5), endpoint_override=nova.url)
        events = NovaEventsClient(RestClient(adapter, timeout=5, group="nova"))
        yield Rig(nova, Renotifier(events, audit=StreamAudit("engine", str(audit)), health=health), health, audit)


def extend(attempt: int = 2) -> Extend:
    """In its n-th attempt."""
    return Extend(
        id=new_id(), key=ExtendKey(new_id(), new_id()), wanted_gen=1, attempt=attempt, failures=0, opened_at=0.0,
        request_id="req-1", global_request_id="req-global",
    )  # fmt: skip


def test_an_extend_that_its_agent_has_not_looked_at_yet_is_not_told(rig: Rig) -> None:
    """Nova knows from the listener, and may have done it."""
    assert rig.prompt([extend(attempt=1)]) is None
    assert rig.nova.requests == []


def test_what_was_seen_behind_is_told_in_one_request_under_the_users_own_id(rig: Rig) -> None:
    late = [extend(), extend(attempt=7)]
    assert rig.prompt([extend(attempt=1), *late]) is None
    assert rig.nova.events == [(x.key.server_id, x.key.volume_id) for x in late]
    ((headers, events),) = rig.nova.requests
    assert headers["OpenStack-API-Version"] == "compute 2.51"
    assert headers["X-OpenStack-Request-ID"] == "req-global"
    assert {event["name"] for event in events} == {"volume-extended"}
    lines = [json.loads(line) for line in rig.audit.read_text().splitlines()]
    assert [(line["event"], line["volume"], line["reason"]) for line in lines] == [
        ("posted", x.key.volume_id, "delivered") for x in late
    ]


def test_an_event_nova_refuses_is_recorded_and_stops_the_cast_only_where_all_are(rig: Rig) -> None:
    one, two = extend(), extend()
    rig.nova.behaviour = lambda events: answered(events, lambda e: 404 if e["tag"] == one.key.volume_id else 200)
    assert rig.prompt([one, two]) is None
    assert rig.prompt([one]) is Reason.EVENT_UNKNOWN_SERVER
    rig.nova.behaviour = says(422)
    assert rig.prompt([one, two]) is Reason.EVENT_NO_HOST


@pytest.mark.parametrize(
    ("status", "reason"),
    [(503, Reason.NOVA_UNREACHABLE), (403, Reason.FORBIDDEN), (404, Reason.WRONG_URL), (400, Reason.REQUEST_BAD)],
)
def test_a_nova_that_does_not_take_the_request_is_said_and_waited_for(
    rig: Rig, status: int, reason: Reason
) -> None:
    rig.nova.behaviour = refuses(status)
    assert rig.prompt([extend()]) is reason
    assert rig.health.checks()[NOVA_EVENTS].reason == reason.text
    rig.nova.behaviour = says(200)
    assert rig.prompt([extend()]) is None
    assert rig.health.checks()[NOVA_EVENTS].ok


def test_a_nova_that_is_away_is_waited_for(rig: Rig) -> None:
    rig.nova.close()
    assert rig.prompt([extend()]) is Reason.NOVA_UNREACHABLE


def test_answers_that_cannot_be_read_are_no_yes() -> None:
    assert read_answer(Answer(status=200)) == Trouble(Reason.BAD_ANSWER)
    row = {"server_uuid": "S", "tag": "V"}
    body = {"events": [row, 7, {"tag": 3}]}
    assert read_answer(Answer(status=207, body=body)) == {ExtendKey("s", "v"): None}


def test_extends_of_several_users_are_told_under_an_id_of_their_own_that_the_audit_log_maps(rig: Rig) -> None:
    late = [extend(), dataclasses.replace(extend(), global_request_id="req-other")]
    assert rig.prompt(late) is None
    ((headers, _),) = rig.nova.requests
    posted_as = headers["X-OpenStack-Request-ID"]
    assert posted_as not in {x.global_request_id for x in late}
    lines = [json.loads(line) for line in rig.audit.read_text().splitlines()]
    assert [(line["global_request_id"], line["data"]["posted_as"]) for line in lines] == [
        ("req-global", posted_as), ("req-other", posted_as),
    ]  # fmt: skip


def test_a_nova_that_drips_its_answer_is_left_after_its_time(tmp_path: Path) -> None:
    with SlowServer(Slowness.BODY) as nova:
        adapter = Adapter(Session(auth=Token(nova.url, "t")), endpoint_override=nova.url)
        events = NovaEventsClient(RestClient(adapter, timeout=0.3, group="nova"))
        health = Health()
        prompt = Renotifier(events, audit=StreamAudit("engine", str(tmp_path / "a")), health=health)
        assert prompt([extend()]) is Reason.NOVA_TIMED_OUT
        assert nova.url in health.checks()[NOVA_EVENTS].reason
