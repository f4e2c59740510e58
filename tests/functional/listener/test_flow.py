# SPDX-License-Identifier: Apache-2.0
"""What real messages become on a real broker: events, skips, parked events, unreadable messages."""

import json
from typing import Any

import pytest

from bridge.core.extend import new_id
from bridge.runtime.broker import PARKED_QUEUE, UNREADABLE_QUEUE
from listener.retry_policy import SlowDelay
from tests.functional.listener.conftest import Lab
from tests.lab.cinder_bus import CinderBus, resize_end
from tests.lab.endpoint import Reply, answered, says, takes_all
from tests.lab.paths import ROOT
from tests.lab.recording import read_recording
from tests.lab.secrets import secrets_of
from tests.lab.waiting import until

pytestmark = pytest.mark.functional

SLOW = SlowDelay.SHORT.queue
STREAM = ROOT / "bridge" / "standin" / "recorded.jsonl"


def extend(server_id: str | None = None) -> tuple[bytes, tuple[str, str]]:
    """A message and the event it is about."""
    server, volume = server_id or new_id(), new_id()
    body, _ = resize_end(volume_id=volume, server_id=server, attachment_id=new_id(), host="cmp-1", size=2)
    return body, (server, volume)


def test_a_recorded_stream_becomes_one_event_per_distinct_attached_server(lab: Lab, bus: CinderBus) -> None:
    recorded = read_recording(STREAM)
    with lab.listening() as listener:
        listener.ready()
        for message in recorded:
            bus.publish(message.body, priority=message.routing_key.rpartition(".")[2])
        listener.settles(len(recorded))
        assert listener.counts("skipped_total") == {
            "other_event": 18,
            "not_attached": 1,
            "no_server": 1,
            "same_server": 2,
        }
    assert sorted(lab.endpoint.events) == sorted(
        [
            ("20541b6d-ff31-4182-829b-c940f4ff55b4", "b953ff75-3e6a-47b0-a57e-fa3e1ca311ad"),
            ("38e4617e-6915-4528-8f62-6bc65c4cf0e7", "7d2d0b98-1eb4-40b7-b84d-30d78fcc77c3"),
            ("407946e6-cf9b-404c-a1b9-62c56c8ea88f", "7d2d0b98-1eb4-40b7-b84d-30d78fcc77c3"),
            ("0285fb5c-9817-44ad-8e6c-def0329db778", "7a2f55d1-8c2c-4b6f-9930-6df5d25ffc92"),
            ("808215e4-3d54-4fda-b4de-8c65705322ab", "43d4bfe3-aac3-4bf3-8c45-6d7014175485"),
            ("b9c6f59d-fec7-4917-be0a-f8b9bc5a1753", "58198cbf-0df7-4455-ad4f-d3f9ee05d560"),
        ]
    )
    assert len(lab.records("posted")) == 6
    assert lab.records("parked") + lab.records("unreadable") == []
    assert (lab.waiting("extend_bridge.info"), lab.waiting("extend_bridge.error")) == (0, 0)


def test_an_event_goes_on_under_the_request_id_of_the_users_own_resize(lab: Lab, bus: CinderBus) -> None:
    body, request_id = resize_end(
        volume_id=new_id(), server_id=new_id(), attachment_id=new_id(), host="cmp-1", size=2
    )
    with lab.listening() as listener:
        bus.publish(body)
        listener.settles(1)
    ((headers, _),) = lab.endpoint.requests
    assert headers["X-OpenStack-Request-ID"] == request_id


POISON = {
    "not_json": b"this is not json",
    "not_utf8": b'{"event_type": "\xff"',
    "not_an_object": b"[1]",
    "unknown_envelope": b'{"oslo.version": "9.0", "oslo.message": "{}"}',
    "too_deep": b"[" * 100_000,
}


def test_what_nobody_can_read_is_kept_as_it_came_and_its_neighbours_are_delivered(lab: Lab, bus: CinderBus) -> None:
    bodies = {reason: body if reason != "not_utf8" else b"\xff\xfe\xff" for reason, body in POISON.items()}
    events = []
    with lab.listening() as listener:
        listener.ready()
        for body in bodies.values():
            neighbour, event = extend()
            bus.publish(body, content_type=None, content_encoding=None)
            bus.publish(neighbour)
            events.append(event)
        listener.settles(2 * len(bodies))
    assert sorted(lab.endpoint.events) == sorted(events)
    kept = lab.drain(UNREADABLE_QUEUE)
    assert {headers["reason"]: body for body, headers in kept} == bodies
    assert len(kept) == len(bodies)


def test_the_lanes_survive_a_node_and_the_unreadable_one_forgets(lab: Lab, bus: CinderBus) -> None:
    with lab.listening() as listener:
        bus.publish(b"nobody can read this")
        listener.settles(1)
    lines = lab.vhost.node.ctl("list_queues", "-p", lab.vhost.name, "name", "arguments").splitlines()
    arguments = dict(line.split("\t", 1) for line in lines if "\t" in line)
    assert "quorum" in arguments[PARKED_QUEUE]
    assert "x-message-ttl" not in arguments[PARKED_QUEUE]
    assert '{"x-message-ttl",604800000}' in arguments[UNREADABLE_QUEUE]
    assert '{"x-delivery-limit",2147483647}' in arguments[PARKED_QUEUE], "nothing is dropped for its deliveries"


NOT_TAKEN: dict[str, tuple[Any, str, str]] = {
    "the server is unknown": (says(404), "event_unknown_server", SLOW),
    "the server has no host": (says(422), "event_no_host", SLOW),
    "the event is bad": (says(400), "event_bad", PARKED_QUEUE),
    "the request is refused": (lambda _: Reply(status=400), "request_bad", PARKED_QUEUE),
    "the request fails": (lambda _: Reply(status=500), "request_failed", SLOW),
    "the answer lacks the event": (lambda _: Reply(status=207, body=b'{"events": []}'), "event_no_code", SLOW),
}


@pytest.mark.parametrize(("behaviour", "reason", "lane"), NOT_TAKEN.values(), ids=NOT_TAKEN)
def test_an_event_the_endpoint_does_not_take_goes_into_its_lane_without_a_secret(
    behaviour: Any, reason: str, lane: str, lab: Lab, bus: CinderBus
) -> None:
    body, (server, volume) = extend()
    lab.endpoint.behaviour = behaviour
    with lab.listening() as listener:
        bus.publish(body)
        listener.settles(1)
    ((raw, _),) = lab.drain(lane)
    kept = json.loads(raw)
    assert (kept["server_id"], kept["volume_id"]) == (server, volume)
    assert (kept["reason"], kept["attempts"], kept["version"]) == (reason, 1, 1)
    hidden = secrets_of(STREAM)
    assert any(secret.encode() in body for secret in hidden), "the message holds secrets, or this proves nothing"
    places = raw + lab.log.read_bytes() + (lab.directory / "audit.jsonl").read_bytes()
    assert [secret for secret in hidden if secret.encode() in places] == []


def test_one_bad_event_in_a_batch_is_found_and_the_others_are_delivered(lab: Lab, bus: CinderBus) -> None:
    bad = new_id()
    lab.endpoint.behaviour = lambda events: (
        Reply(status=500) if any(e["server_uuid"] == bad for e in events) else takes_all(events)
    )
    lab.endpoint.gate.clear()  # the rest comes while the first is on its way: one batch
    first, _ = extend()
    with lab.listening() as listener:
        bus.publish(first)
        until(lambda: lab.endpoint.requests, "the first request")
        bodies = [extend(bad if n == 31 else None) for n in range(50)]
        for body, _ in bodies:
            bus.publish(body)
        until(lambda: lab.waiting("extend_bridge.info") == 0, "the broker has handed them all over")
        lab.endpoint.gate.set()
        listener.settles(51)
        assert listener.count("events_total", verdict="delivered", reason="delivered") == 50
    ((raw, _),) = lab.drain(SLOW)
    assert json.loads(raw)["server_id"] == bad
    assert max(len(events) for _, events in lab.endpoint.requests) == 50


def test_codes_are_per_event_within_one_request(lab: Lab, bus: CinderBus) -> None:
    gone = new_id()
    lab.endpoint.behaviour = lambda events: answered(
        events, lambda event: 404 if event["server_uuid"] == gone else 200
    )
    with lab.listening() as listener:
        for server in (new_id(), gone, new_id()):
            bus.publish(extend(server)[0])
        listener.settles(3)
    ((raw, _),) = lab.drain(SLOW)
    assert json.loads(raw)["server_id"] == gone
    assert sorted(record["outcome"] for record in lab.records("posted")) == ["delivered", "delivered", "slow"]
