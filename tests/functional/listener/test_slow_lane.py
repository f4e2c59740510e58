# SPDX-License-Identifier: Apache-2.0
"""The slow lane on a real broker: what cannot be delivered now waits there and comes back, whatever dies."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import kombu
import pytest

from bridge.runtime.broker import BROKER_ERRORS, DUE_QUEUE, PARKED_QUEUE, UNREADABLE_QUEUE, QueueSpec, ensure_queue
from listener.retry_policy import SlowDelay
from tests.functional.conftest import Vhost
from tests.functional.listener.conftest import Lab
from tests.functional.listener.test_away import QUEUE, publish
from tests.functional.listener.test_flow import extend
from tests.lab.cinder_bus import CinderBus
from tests.lab.endpoint import Reply, answered, refuses, says, takes_all
from tests.lab.waiting import until

pytestmark = pytest.mark.functional


def steps_of(vhost: Vhost, seconds: float) -> None:
    """Have the steps of the slow lane with this wait; queues that are there are left as they are."""
    with vhost.connection() as connection:
        ensure_queue(connection, QueueSpec(name=DUE_QUEUE))
        for step in SlowDelay:
            ensure_queue(connection, QueueSpec(name=step.queue, ttl=seconds, then=DUE_QUEUE))


@contextmanager
def holding(lab: Lab, *, steps: float = 0.5) -> Iterator[None]:
    """The endpoint away, and a listener that holds for a second at most."""
    lab.more = {"listener": "hold_seconds = 1"}
    steps_of(lab.vhost, steps)
    lab.endpoint.behaviour = refuses(503)
    yield


def asked_again(lab: Lab) -> None:
    """Wait until the listener has sat down to wait: what it had in hand is in the slow lane, and still it asks."""
    until(lambda: lab.records("deferred"), "what was in hand goes into the slow lane")
    asked = len(lab.endpoint.requests)
    until(lambda: len(lab.endpoint.requests) > asked, "it asks again")


def test_an_event_is_tried_again_until_it_is_taken(lab: Lab, bus: CinderBus) -> None:
    steps_of(lab.vhost, 0.2)
    answers = iter([404, 422, 404])
    lab.endpoint.behaviour = lambda events: answered(events, lambda _: next(answers, 200))
    with lab.listening() as listener:
        (event,) = publish(bus, 1)
        until(lambda: len(lab.records("posted")) == 4, "the fourth try is recorded")
        until(lambda: listener.count("due_in_hand") == 0, "and settled")
    assert lab.endpoint.events == [event] * 4
    assert [record["data"] for record in lab.records("deferred")] == [
        {"step": step, "answered": n} for n, step in enumerate(["30s", "2m", "10m"], 1)
    ]
    assert len({record["global_request_id"] for record in lab.records("posted")}) == 1
    assert lab.records("parked") == []
    assert [lab.waiting(name) for name in (DUE_QUEUE, *(step.queue for step in SlowDelay))] == [0] * 4


def test_an_event_refused_often_and_for_long_enough_is_parked(lab: Lab, bus: CinderBus) -> None:
    steps_of(lab.vhost, 0.1)
    lab.more = {"listener": "park_attempts = 3\npark_seconds = 0.1"}
    lab.endpoint.behaviour = says(404)
    with lab.listening():
        publish(bus, 1)
        until(lambda: lab.records("parked"), "it is parked")
    ((raw, _),) = lab.drain(PARKED_QUEUE)
    parked = json.loads(raw)
    assert (parked["reason"], parked["mark"]) == ("event_unknown_server", None)
    assert parked["attempts"] >= 3
    assert len(lab.endpoint.events) == parked["attempts"]


def test_an_endpoint_that_fails_for_everything_parks_nothing_while_it_lasts(lab: Lab, bus: CinderBus) -> None:
    steps_of(lab.vhost, 0.2)
    lab.endpoint.behaviour = lambda events: Reply(status=500)
    with lab.listening() as listener:
        events = publish(bus, 30)
        listener.settles(30)
        until(lambda: len(lab.records("deferred")) > 90, "they go round")
        lab.endpoint.behaviour = takes_all
        until(lambda: listener.count("events_total", verdict="delivered", reason="delivered") == 30, "all arrive")
    assert set(lab.endpoint.events) == set(events)
    assert lab.records("parked") == []


def test_held_for_too_long_it_goes_into_the_slow_lane_and_no_more_is_taken_until_the_endpoint_answers(
    lab: Lab, bus: CinderBus
) -> None:
    with holding(lab, steps=30), lab.listening() as listener:
        events = publish(bus, 500)
        until(lambda: len(lab.records("deferred")) >= 200, "what was in hand is in the slow lane")
        asked_again(lab)
        taken = listener.count("messages_total")
        assert taken <= 400, "what was in hand and what was on its way"
        assert listener.count("in_hand") == 0
        asked = len(lab.endpoint.requests)
        until(lambda: len(lab.endpoint.requests) > asked + 2, "the endpoint is asked again and again")
        assert listener.count("messages_total") == taken
        assert lab.waiting(QUEUE) == 500 - taken
        assert not listener.process.health.ready()
        lab.endpoint.behaviour = takes_all
        listener.settles(500)
        until(lambda: listener.check("endpoint").ok, "ready again")
        delivered = {(record["server"], record["volume"]) for record in lab.records("posted")}
    slow = lab.drain(SlowDelay.SHORT.queue)
    waiting = {(each["server_id"], each["volume_id"]) for each in (json.loads(body) for body, _ in slow)}
    assert all(json.loads(body)["attempts"] == 0 for body, _ in slow)
    assert delivered | waiting == set(events)


def test_what_went_into_the_slow_lane_is_delivered_when_the_endpoint_is_back(lab: Lab, bus: CinderBus) -> None:
    with holding(lab), lab.listening() as listener:
        events = publish(bus, 250)
        until(lambda: len(lab.records("deferred")) >= 200, "what was in hand is in the slow lane")
        until(lambda: not listener.check("due_endpoint").ok, "and came back, to be held")
        lab.endpoint.behaviour = takes_all
        delivered = lambda: {  # noqa: E731
            (each["server"], each["volume"]) for each in lab.records("posted") if each["outcome"] == "delivered"
        }
        until(lambda: delivered() == set(events), "all are delivered")
        until(listener.process.health.ready, "ready")
        until(lambda: listener.count("in_hand") + listener.count("due_in_hand") == 0, "nothing is in hand")
    assert [lab.waiting(name) for name in (QUEUE, DUE_QUEUE, *(step.queue for step in SlowDelay))] == [0] * 5
    assert lab.records("parked") == []


def test_no_delivery_is_counted_when_the_listener_ends_while_the_endpoint_is_away(lab: Lab, bus: CinderBus) -> None:
    with holding(lab, steps=30):
        with lab.listening() as listener:
            publish(bus, 500)
            asked_again(lab)
            taken = listener.count("messages_total")
        with lab.vhost.connection() as connection:
            left = kombu.Queue(QUEUE, channel=connection.channel(), no_declare=True)
            first = left.get(accept=None)
            assert first is not None
            assert not first.delivery_info["redelivered"]
            first.reject(requeue=True)
        assert lab.waiting(QUEUE) == 500 - taken


@pytest.fixture
def eager_broker(lab: Lab) -> Iterator[None]:
    """What expired while its next queue was gone is tried again every second, not every three minutes."""
    node, setting = lab.vhost.node, "rabbit, dead_letter_worker_publisher_confirm_timeout"
    before = node.ctl("eval", f"application:get_env({setting}).").strip()
    node.ctl("eval", f"application:set_env({setting}, 1000).")
    yield
    if before == "undefined":  # until 3.10; later releases declare no lane without a value
        node.ctl("eval", f"application:unset_env({setting}).")
    else:
        value = before.removeprefix("{ok,").removesuffix("}")
        node.ctl("eval", f"application:set_env({setting}, {value}).")


def test_what_expires_while_the_next_queue_is_gone_is_kept_by_the_broker_and_comes_back(
    eager_broker: None, lab: Lab, bus: CinderBus
) -> None:
    steps_of(lab.vhost, 0.3)
    lab.endpoint.behaviour = says(404)
    with lab.listening() as listener:
        publish(bus, 1)
        listener.settles(1)
        with lab.vhost.connection() as connection:
            kombu.Queue(DUE_QUEUE, channel=connection.channel()).delete()
        lab.endpoint.behaviour = takes_all
        until(lambda: listener.count("events_total", verdict="delivered", reason="delivered") == 1, "it comes back")
        until(lambda: listener.count("due_in_hand") == 0, "and is settled")


def test_the_lane_outlives_the_broker_and_its_queues_say_what_they_do(lab: Lab, bus: CinderBus) -> None:
    lab.endpoint.behaviour = says(404)
    with lab.listening() as listener:
        publish(bus, 3)
        listener.settles(3)
    node = lab.vhost.node
    lines = node.ctl("list_queues", "-p", lab.vhost.name, "name", "arguments").splitlines()
    arguments = dict(line.split("\t", 1) for line in lines if "\t" in line)
    for step in SlowDelay:
        of_step = arguments[step.queue]
        assert f'"x-message-ttl",{int(step.seconds * 1000)}' in of_step
        for word in ("quorum", "at-least-once", "reject-publish", DUE_QUEUE):
            assert word in of_step
    node.stop()
    node.start()

    def still_there() -> bool:
        with suppress(*BROKER_ERRORS):  # a quorum queue without its leader yet
            return lab.waiting(SlowDelay.SHORT.queue) + lab.waiting(DUE_QUEUE) == 3  # due after 30 s
        return False

    until(still_there, "they are still there")


def test_what_somebody_put_into_our_lane_is_kept_as_it_came(lab: Lab, bus: CinderBus) -> None:
    with lab.listening() as listener:
        listener.ready()
        body, event = extend()
        with lab.vhost.connection() as connection:
            connection.Producer().publish(
                b"who put me here?", exchange="", routing_key=DUE_QUEUE, content_type="text/plain"
            )
        bus.publish(body)
        listener.settles(1)
        until(lambda: lab.records("unreadable"), "it is kept")
        until(lambda: listener.count("due_in_hand") == 0, "and settled")
    assert lab.endpoint.events == [event]
    ((raw, headers),) = lab.drain(UNREADABLE_QUEUE)
    assert (raw, headers["reason"]) == (b"who put me here?", "not_our_form")


def test_while_the_endpoint_hides_all_servers_each_gather_goes_into_the_slow_lane_and_all_arrive_once_it_does_not(
    lab: Lab, bus: CinderBus
) -> None:
    with holding(lab):
        lab.endpoint.behaviour = says(404)
        lab.endpoint.gate.clear()
        with lab.listening() as listener:
            events = publish(bus, 40)
            until(lambda: lab.waiting(QUEUE) == 0, "all are taken")
            lab.endpoint.gate.set()
            until(
                lambda: "may not see other projects" in listener.check("endpoint").reason,
                "the alarm in those words",
            )
            until(lambda: len(lab.records("deferred")) >= 40, "they are in the slow lane")
            lab.endpoint.behaviour = takes_all
            publish(bus, 1)
            delivered = lambda: {  # noqa: E731
                (each["server"], each["volume"]) for each in lab.records("posted") if each["outcome"] == "delivered"
            }
            until(lambda: set(events) <= delivered(), "all arrive")
            assert lab.records("parked") == []
