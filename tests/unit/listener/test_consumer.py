# SPDX-License-Identifier: Apache-2.0
"""The listener on a broker in memory: a queue not there yet, a broker that is away, the end while it waits."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import kombu
import pytest
from kombu.exceptions import OperationalError
from prometheus_client import CollectorRegistry

from bridge.core.audit import AuditRecord
from bridge.core.extend import ExtendKey, new_id
from bridge.core.reasons import Reason
from bridge.runtime.broker import kombu_connection
from bridge.runtime.bus_url import MEMORY
from bridge.runtime.health import Health
from bridge.runtime.metrics import ListenerMetrics
from bridge.runtime.rest import Answer, NoAnswer
from listener import intake
from listener.consumer import NOTIFICATIONS, Loop
from listener.decode import NotificationReader
from listener.delivery import Worker
from listener.endpoint import EndpointClient
from listener.lane_writer import LaneWriter
from listener.lanes import Deferred, Parked
from listener.retry_policy import DeliveryLimits, RetryPolicy, SlowDelay
from listener.sources import TopicSource
from listener.telemetry import Telemetry
from tests.lab.waiting import until
from tests.unit.listener.messages import SERVER, enveloped, one_server, recorded

BATCH = 4
NOISE = enveloped({"event_type": "volume.create.end", "payload": {}})


class Silent:
    """An audit log nobody reads."""

    def write(self, *records: AuditRecord) -> None:
        pass


class NoLanes:
    """Nothing here is to be parked."""

    slow = False

    def defer(self, deferred: Deferred, step: SlowDelay) -> None:
        raise AssertionError(deferred)

    def park(self, parked: Parked) -> None:
        raise AssertionError(parked)

    def keep_raw(self, body: bytes, reason: Reason) -> None:
        raise AssertionError(body)


class Endpoint:
    """Takes all, or is away."""

    def __init__(self) -> None:
        self.away = False
        self.asked = 0
        self.taken: list[ExtendKey] = []

    def post(self, events: Sequence[ExtendKey], request_id: str, traces: object = None) -> Answer | NoAnswer:
        self.asked += 1
        if self.away:
            return NoAnswer(Reason.UNREACHABLE)
        self.taken += events
        rows = [{"server_uuid": key.server_id, "tag": key.volume_id, "code": 200} for key in events]
        return Answer(status=200, body={"events": rows})


class Cloud:
    """A topic of its own on the broker of this process, and a listener for it."""

    def __init__(self) -> None:
        self.topic = f"topic-{new_id()}"
        self.queues = TopicSource(self.topic).queues
        self.endpoint = Endpoint()
        self.health = Health()
        self.registry = CollectorRegistry()

    def declare(self, *queues: str) -> None:
        with kombu_connection(MEMORY, heartbeat=0, name="cinder") as connection:
            for name in queues or self.queues:
                kombu.Queue(name, channel=connection.default_channel).queue_declare()

    def publish(self, *bodies: bytes, queue: str | None = None) -> None:
        with kombu_connection(MEMORY, heartbeat=0, name="cinder") as connection:
            producer = connection.Producer()
            for body in bodies:
                producer.publish(
                    body, exchange="", routing_key=queue or self.queues[0],
                    content_type="application/json", content_encoding="utf-8",
                )  # fmt: skip

    def waiting(self) -> int:
        with kombu_connection(MEMORY, heartbeat=0, name="test") as connection:
            queue = kombu.Queue(self.queues[0], channel=connection.default_channel)
            return int(queue.queue_declare(passive=True).message_count)

    def settled(self, messages: int) -> Callable[[], bool]:
        def done() -> bool:
            taken = self.registry.get_sample_value("extend_bridge_listener_messages_total")
            left = self.registry.get_sample_value("extend_bridge_listener_in_hand")
            return taken == messages and left == 0

        return done

    def check(self, name: str) -> tuple[bool, str]:
        check = self.health.checks().get(f"listener.{name}")
        return (check.ok, check.reason) if check else (False, "")

    @contextmanager
    def listening(
        self, connect: Callable[[], kombu.Connection] = lambda: kombu_connection(MEMORY, heartbeat=0, name="test")
    ) -> Iterator[None]:
        self.registry = CollectorRegistry()
        telemetry = Telemetry(Silent(), ListenerMetrics(self.registry))
        worker = Worker(
            limits=DeliveryLimits(batch=BATCH, retry_cap=0.1, hold=60, retry=RetryPolicy()),
            reader=NotificationReader(telemetry, max_bytes=2**20, max_rows=1000),
            client=EndpointClient(self.endpoint),
            lane_writer=LaneWriter(NoLanes(), health=self.health, check="listener.lanes", telemetry=telemetry),
            health=self.health,
            check="listener.endpoint",
            telemetry=telemetry,
        )
        listener = Loop(
            connect=connect,
            source=TopicSource(self.topic),
            prefetch=2 * BATCH,
            retry_cap=0.1,
            worker=worker,
            health=self.health,
            checks=NOTIFICATIONS,
            telemetry=telemetry,
        )
        stop = threading.Event()
        thread = threading.Thread(target=listener.run, args=(stop,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(120)
            assert not thread.is_alive(), "it must end when it is told to"


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Cloud:
    monkeypatch.setattr(intake, "_IDLE", 0.02)
    monkeypatch.setattr(intake, "_LOOK_EVERY", 0.05)
    return Cloud()


def test_what_waits_in_the_queue_is_delivered_and_noise_is_taken_away(cloud: Cloud) -> None:
    cloud.declare()
    cloud.publish(NOISE, recorded("one_server"), NOISE, recorded("multiattach"), NOISE)
    with cloud.listening():
        until(cloud.settled(5), "all are settled")
    assert len(cloud.endpoint.taken) == 3
    assert cloud.waiting() == 0


def test_the_queue_for_errors_is_drained_as_well(cloud: Cloud) -> None:
    cloud.declare()
    cloud.publish(NOISE, queue=cloud.queues[1])
    with cloud.listening():
        until(cloud.settled(1), "it is taken away")


def test_a_queue_that_is_not_there_is_named_and_taken_once_it_is(cloud: Cloud) -> None:
    with cloud.listening():
        until(lambda: "cinder.conf" in cloud.check("queue")[1], "it says what to set")
        assert not cloud.health.ready()
        assert cloud.topic in cloud.check("queue")[1]
        cloud.declare(cloud.queues[0])
        until(cloud.health.ready, "ready without the queue for errors")
        cloud.publish(recorded("one_server"))
        until(cloud.settled(1), "it is settled")
    assert [key.server_id for key in cloud.endpoint.taken] == [SERVER]


def test_told_to_stop_while_the_endpoint_is_away_it_ends_and_has_taken_no_more_than_may_be_in_hand(
    cloud: Cloud,
) -> None:
    cloud.declare()
    cloud.endpoint.away = True
    cloud.publish(*(one_server(volume_id=new_id()) for _ in range(11)))
    with cloud.listening():
        until(lambda: cloud.endpoint.asked > 2, "it waits and asks again")
        assert not cloud.check("endpoint")[0]
    assert cloud.endpoint.taken == []
    assert cloud.waiting() == 11 - 2 * BATCH


def test_what_comes_while_the_endpoint_is_away_is_delivered_when_it_is_back(cloud: Cloud) -> None:
    cloud.declare()
    cloud.endpoint.away = True
    cloud.publish(*(one_server(volume_id=new_id()) for _ in range(3)))
    with cloud.listening():
        until(lambda: cloud.endpoint.asked > 1, "it waits")
        cloud.publish(*(one_server(volume_id=new_id()) for _ in range(8)))
        cloud.endpoint.away = False
        until(cloud.settled(11), "all are settled")
        assert cloud.check("endpoint")[0]
    assert len(cloud.endpoint.taken) == len(set(cloud.endpoint.taken)) == 11


@pytest.mark.parametrize("error", [OperationalError("no route"), ConnectionRefusedError(), TimeoutError()])
def test_a_broker_that_is_away_is_connected_to_again(error: Exception, cloud: Cloud) -> None:
    cloud.declare()
    cloud.publish(recorded("one_server"))
    away = threading.Event()
    away.set()

    def connect() -> kombu.Connection:
        if away.is_set():
            raise error
        return kombu_connection(MEMORY, heartbeat=0, name="test")

    with cloud.listening(connect):
        until(lambda: "notification bus cannot be used" in cloud.check("broker")[1], "it says so")
        away.clear()
        until(cloud.settled(1), "it is settled")
        assert cloud.health.ready()
