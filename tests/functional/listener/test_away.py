# SPDX-License-Identifier: Apache-2.0
"""Endpoint, queues, lanes or broker away, and the listener itself told to end: nothing is lost, and it says why."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import kombu
import pytest
import requests

from bridge.core.extend import new_id
from bridge.runtime.broker import PARKED_QUEUE, UNREADABLE_QUEUE
from tests.functional.conftest import Vhost
from tests.functional.listener.conftest import Lab, Running
from tests.functional.listener.test_flow import extend
from tests.lab.cinder_bus import CinderBus, resize_end
from tests.lab.endpoint import refuses, says, takes_all
from tests.lab.waiting import until

pytestmark = pytest.mark.functional

QUEUE = "extend_bridge.info"


def connections(vhost: Vhost) -> set[str]:
    """Who is connected to the virtual host: one line per connection, with its process there."""
    lines = vhost.node.ctl("list_connections", "vhost", "pid").splitlines()
    return {line for line in lines if line.startswith(vhost.name)}


def publish(bus: CinderBus, number: int) -> list[tuple[str, str]]:
    """So many extends, and their events in order."""
    messages = [extend() for _ in range(number)]
    for body, _ in messages:
        bus.publish(body)
    return sorted(event for _, event in messages)


def test_an_endpoint_that_is_away_is_waited_for_longer_than_a_heartbeat_on_the_same_connection(
    lab: Lab, bus: CinderBus
) -> None:
    lab.heartbeat = 5
    with lab.listening() as listener:
        listener.ready()
        before = connections(lab.vhost)
        assert len(before) >= 3  # Cinder's and the listener's, of which one is for the slow lane
        lab.endpoint.close()
        events = publish(bus, 250)  # more than may be in hand
        until(lambda: not listener.check("endpoint").ok, "the listener says that the endpoint is away")
        assert "cannot be connected to" in listener.check("endpoint").reason
        assert not listener.process.health.ready()
        came = time.monotonic()
        until(lambda: time.monotonic() - came > 3 * lab.heartbeat, "three heartbeats pass")
        assert 0 < listener.count("in_hand") <= 200
        lab.endpoint.open()
        listener.settles(250)
        until(lambda: listener.check("endpoint").ok, "the endpoint is back")
        assert before <= connections(lab.vhost)  # beside them that of the looks at the bus
    assert sorted(lab.endpoint.events) == events
    assert {record["reason"] for record in lab.records("held")} == {"unreachable"}
    held = [(record["server"], record["volume"]) for record in lab.records("held")]
    assert len(held) == len(set(held)), "an event is said to be held once per hold"


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (503, {}, "502, 503 or 504"),
        (503, {"Retry_After": "1"}, "asked to wait"),
        (401, {}, "refuses the configured user"),
        (403, {}, "lacks the role"),
        (404, {}, "not the compute API"),
        (406, {}, "does not support compute 2.51"),
    ],
)
def test_an_endpoint_that_refuses_us_is_named_in_words_and_tried_until_it_is_mended(
    status: int, headers: dict[str, str], words: str, lab: Lab, bus: CinderBus
) -> None:
    lab.endpoint.behaviour = refuses(status, **headers)
    with lab.listening() as listener:
        (event,) = publish(bus, 1)
        until(lambda: not listener.check("endpoint").ok, "not ready")
        assert words in listener.check("endpoint").reason
        until(lambda: len(lab.endpoint.requests) > 1, "it is tried again")
        lab.endpoint.behaviour = takes_all
        listener.settles(1)
        until(listener.process.health.ready, "ready again")
    assert set(lab.endpoint.events) == {event}
    assert lab.records("parked") == []


def test_a_slow_endpoint_is_sent_the_event_again_and_a_truncated_answer_counts_as_none(
    lab: Lab, bus: CinderBus
) -> None:
    lab.endpoint.gate.clear()
    with lab.listening() as listener:
        (event,) = publish(bus, 1)
        until(lambda: not listener.check("endpoint").ok, "no answer in time")
        assert "in time" in listener.check("endpoint").reason
        lab.endpoint.gate.set()
        listener.settles(1)
    assert set(lab.endpoint.events) == {event}


def test_a_parked_queue_deleted_under_the_listener_loses_nothing(lab: Lab, bus: CinderBus) -> None:
    lab.endpoint.behaviour = says(400)
    with lab.listening() as listener:
        publish(bus, 1)
        listener.settles(1)
        with lab.vhost.connection() as connection:
            kombu.Queue(PARKED_QUEUE, channel=connection.channel()).delete()
        publish(bus, 1)
        listener.settles(2)
        until(lambda: listener.check("lanes").ok, "the lanes work again")
    assert len(lab.drain(PARKED_QUEUE)) == 1


def _ok(listener: Running, name: str) -> bool:
    """Return True before a check says anything, and while it is well."""
    check = listener.process.health.checks().get(f"listener.{name}")
    return check is None or check.ok


def test_what_cannot_be_kept_stays_in_hand_until_it_can_be_and_does_not_stop_its_neighbours(
    lab: Lab, vhost: Vhost, bus: CinderBus
) -> None:
    user = f"lanes-{vhost.name}"
    vhost.node.ctl("add_user", user, "guest")
    try:
        lab.lanes_url = vhost.url.replace("guest:", f"{user}:")
        with lab.listening() as listener:
            bus.publish(b"no notification at all")
            (event,) = publish(bus, 1)
            until(lambda: not _ok(listener, "lanes"), "the lanes are refused")
            until(lambda: event in lab.endpoint.events, "the neighbour is delivered")
            assert listener.count("in_hand") > 0
            vhost.node.ctl("set_permissions", "-p", vhost.name, user, ".*", ".*", ".*")
            listener.settles(2)
            assert listener.check("lanes").ok
    finally:
        vhost.node.ctl("delete_user", user)
    assert [body for body, _ in lab.drain(UNREADABLE_QUEUE)] == [b"no notification at all"]
    assert set(lab.endpoint.events) == {event}


def test_missing_queues_are_named_with_what_to_set_in_cinder_conf_and_taken_once_they_are_there(
    lab: Lab, vhost: Vhost
) -> None:
    with lab.listening() as listener:
        until(lambda: "cinder.conf" in listener.check("queue").reason, "the reason is said")
        assert not listener.process.health.ready()
        assert "topics = extend_bridge" in listener.check("queue").reason
        bus = CinderBus(vhost.url)  # declares
        listener.ready()
        (event,) = publish(bus, 1)
        listener.settles(1)
        bus.close()
    assert lab.endpoint.events == [event]


def test_only_the_queue_extends_come_on_is_waited_for(lab: Lab) -> None:
    with lab.vhost.connection() as connection:
        kombu.Queue(QUEUE, channel=connection.channel(), durable=False).queue_declare()
        with lab.listening() as listener:
            listener.ready()
            body, event = extend()
            connection.Producer().publish(body, exchange="", routing_key=QUEUE, content_type="application/json")
            listener.settles(1)
    assert lab.endpoint.events == [event]


def test_a_queue_deleted_under_the_listener_is_noticed_and_taken_again_once_it_is_back(
    lab: Lab, bus: CinderBus
) -> None:
    with lab.listening() as listener:
        listener.ready()
        with lab.vhost.connection() as connection:
            kombu.Queue(QUEUE, channel=connection.channel()).delete()
        until(lambda: not listener.check("queue").ok, "not ready")
        bus.declare()
        listener.ready()
        (event,) = publish(bus, 1)
        listener.settles(1)
    assert lab.endpoint.events == [event]


@contextmanager
def durable_queue(lab: Lab) -> Iterator[None]:
    """Cinder with durable queues, as it should be set."""
    with lab.vhost.connection() as connection:
        kombu.Queue(QUEUE, channel=connection.channel(), durable=True).queue_declare()
    yield


def put(lab: Lab, number: int) -> list[tuple[str, str]]:
    """So many extends into the durable queue."""
    messages = [extend() for _ in range(number)]
    with lab.vhost.connection() as connection:
        producer = connection.Producer()
        for body, _ in messages:
            producer.publish(
                body,
                exchange="",
                routing_key=QUEUE,
                delivery_mode=2,
                content_type="application/json",
                mandatory=True,
            )
    return sorted(event for _, event in messages)


def test_a_broker_restarted_under_the_listener_loses_nothing_that_was_durable(lab: Lab) -> None:
    with durable_queue(lab), lab.listening() as listener:
        listener.ready()
        lab.endpoint.close()  # so that messages are in hand when the broker goes
        events = put(lab, 20)
        until(lambda: listener.count("in_hand") > 0, "messages are in hand")
        lab.vhost.node.stop()
        try:
            until(lambda: not listener.check("broker").ok, "the listener says that the broker is away")
        finally:
            lab.vhost.node.start()
        lab.endpoint.open()
        until(lambda: set(lab.endpoint.events) == set(events), "every event is delivered")
        listener.ready()
        until(lambda: listener.count("in_hand") == 0, "nothing is left in hand")
    assert lab.waiting(QUEUE) == 0


def test_a_broker_that_is_dead_at_the_start_is_waited_for_while_the_ops_port_says_so(lab: Lab) -> None:
    ops = f"http://127.0.0.1:{lab.ops_port}/healthz"
    with durable_queue(lab):
        (event,) = put(lab, 1)
        lab.vhost.node.stop()
        try:
            with lab.listening() as listener:
                until(lambda: "cannot be used" in listener.check("broker").reason, "the reason is said")
                assert requests.get(f"{ops}/live", timeout=120).status_code == 200
                answer = requests.get(f"{ops}/ready", timeout=120)
                assert answer.status_code == 503
                assert "listener.broker" in answer.text
                assert "cannot be used" in answer.text
                lab.vhost.node.start()
                listener.settles(1)
                until(
                    lambda: requests.get(f"{ops}/ready", timeout=120).status_code == 200,
                    "the slow lane is back, too",
                )
        finally:
            if lab.vhost.node.pid is None:
                lab.vhost.node.start()
    assert lab.endpoint.events == [event]


@contextmanager
def daemon(lab: Lab) -> Iterator["subprocess.Popen[bytes]"]:
    """The listener as operators run it."""
    with lab.log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "listener.cmd", "--config-file", str(lab.conf)],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_sigterm_ends_a_holding_daemon_with_0_and_what_it_held_is_delivered_again(lab: Lab, bus: CinderBus) -> None:
    lab.endpoint.behaviour = refuses(503)
    with daemon(lab) as process:
        events = publish(bus, 10)
        until(lambda: len(lab.endpoint.requests) > 1, "it holds")
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    until(lambda: lab.waiting(QUEUE) == 10, "all are back in the queue")
    lab.endpoint.requests.clear()
    lab.endpoint.behaviour = takes_all
    with lab.listening() as listener:
        listener.settles(10)
    assert sorted(lab.endpoint.events) == events
    assert b"Traceback" not in lab.log.read_bytes()


def test_sigterm_during_a_request_that_is_not_answered_ends_within_the_grace(lab: Lab, bus: CinderBus) -> None:
    lab.endpoint.gate.clear()
    with daemon(lab) as process:
        publish(bus, 1)
        until(lambda: lab.endpoint.requests, "the request is on its way")
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    lab.endpoint.gate.set()
    until(lambda: lab.waiting(QUEUE) == 1, "it is back in the queue")


def test_a_second_sigterm_ends_it_at_once_and_loses_nothing(lab: Lab, bus: CinderBus) -> None:
    lab.more = {"endpoint": "timeout = 14"}  # it would wait so long for the answer
    lab.endpoint.gate.clear()
    with daemon(lab) as process:
        events = publish(bus, 3)
        until(lambda: lab.endpoint.requests, "a request is on its way")
        process.send_signal(signal.SIGTERM)
        until(lambda: "stops within" in lab.log.read_text(), "it drains")
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 128 + signal.SIGTERM
    lab.endpoint.gate.set()
    until(lambda: lab.waiting(QUEUE) == 3, "all are back in the queue")
    with lab.listening() as listener:
        listener.settles(3)
    assert set(lab.endpoint.events) == set(events)


def test_a_killed_daemon_loses_nothing(lab: Lab, bus: CinderBus) -> None:
    lab.endpoint.behaviour = refuses(503)
    with daemon(lab) as process:
        events = publish(bus, 5)
        until(lambda: len(lab.endpoint.requests) > 1, "it holds")
        process.kill()
        process.wait()
    lab.endpoint.requests.clear()
    lab.endpoint.behaviour = takes_all
    with lab.listening() as listener:
        listener.settles(5)
    assert sorted(lab.endpoint.events) == events


def test_two_notifications_of_one_disk_are_both_settled(lab: Lab, bus: CinderBus) -> None:
    lab.endpoint.gate.clear()
    server, volume = new_id(), new_id()
    body, _ = extend()
    with lab.listening() as listener:
        bus.publish(body)
        until(lambda: lab.endpoint.requests, "the first is on its way")
        for size in (2, 3):
            again, _ = resize_end(
                volume_id=volume, server_id=server, attachment_id=new_id(), host="cmp-1", size=size
            )
            bus.publish(again)
        lab.endpoint.gate.set()
        listener.settles(3)
    assert (server, volume) in lab.endpoint.events
    assert len(lab.records("posted")) == 3
