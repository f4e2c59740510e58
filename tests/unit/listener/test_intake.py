# SPDX-License-Identifier: Apache-2.0
"""The intake on kombu's memory transport: a queue is waited for in words, taken when it comes, never declared."""

import threading
from collections.abc import Iterator

import kombu
import pytest

from bridge.core.extend import new_id
from bridge.runtime.broker import kombu_connection
from bridge.runtime.bus_url import MEMORY
from bridge.runtime.health import LIMIT, Health
from listener import intake as module
from listener.intake import Intake
from listener.sources import NoQueue, TopicSource


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_IDLE", 0.02)
    monkeypatch.setattr(module, "_LOOK_EVERY", 0.0)
    monkeypatch.setattr(module, "_SAY_EVERY", 0.0)
    monkeypatch.setattr(module, "_LOOK_SELDOM", 0.0)


@pytest.fixture
def connection() -> Iterator[kombu.Connection]:
    with kombu_connection(MEMORY, heartbeat=0, name="test") as opened:
        yield opened


@pytest.fixture
def topic() -> str:
    return f"t-{new_id()}"


def declare(connection: kombu.Connection, name: str) -> None:
    kombu.Queue(name, exchange=kombu.Exchange(""), routing_key=name, channel=connection.default_channel).declare()


def publish(connection: kombu.Connection, name: str, body: bytes) -> None:
    kombu.Producer(connection.default_channel).publish(
        body, exchange="", routing_key=name, content_type="application/json", content_encoding="binary"
    )


QUEUE = "listener.queue"


def opened(connection: kombu.Connection, topic: str, health: Health, prefetch: int = 4) -> Intake:
    return Intake(connection, TopicSource(topic), prefetch=prefetch, health=health, check=QUEUE)


def test_a_missing_queue_is_not_ready_in_words_and_is_not_made(connection: kombu.Connection, topic: str) -> None:
    health = Health()
    intake = opened(connection, topic, health)
    with intake.consuming():
        assert intake.gather() == []
        check = health.checks()[QUEUE]
        assert not check.ok
        assert f"topics = {topic}" in check.reason
        with pytest.raises(connection.channel_errors):
            kombu.Queue(f"{topic}.info", channel=connection.channel()).queue_declare(passive=True)


def test_queues_are_taken_as_they_come_to_be_and_only_the_first_is_needed(
    connection: kombu.Connection, topic: str
) -> None:
    health = Health()
    intake = opened(connection, topic, health)
    with intake.consuming():
        declare(connection, f"{topic}.info")
        publish(connection, f"{topic}.info", b"one")
        assert [bytes(message.body) for message in intake.gather()] == [b"one"]
        assert health.checks()[QUEUE].ok
        declare(connection, f"{topic}.error")
        publish(connection, f"{topic}.error", b"two")
        assert [bytes(message.body) for message in intake.gather()] == [b"two"]
        assert health.checks()[QUEUE].ok


def test_a_queue_that_we_may_not_read_is_said_though_extends_come_on_the_other(
    connection: kombu.Connection, topic: str
) -> None:
    """RabbitMQ 4.3 refuses to look at it, as it refuses to read it; the queue would grow for ever."""

    class WithoutRight(TopicSource):
        refused = True

        def why_not(self, connection: kombu.Connection, queue: str) -> NoQueue | None:
            if self.refused and queue.endswith(".error"):
                return NoQueue(f"the broker refuses access to queue {queue}")
            return super().why_not(connection, queue)

    for name in ("info", "error"):
        declare(connection, f"{topic}.{name}")
    publish(connection, f"{topic}.info", b"one")
    publish(connection, f"{topic}.error", b"two")
    health, source = Health(), WithoutRight(topic)
    intake = Intake(connection, source, prefetch=4, health=health, check=QUEUE)
    with intake.consuming():
        assert [bytes(message.body) for message in intake.gather()] == [b"one"]
        intake.gather()
        check = health.checks()[QUEUE]
        assert (check.ok, check.reason) == (False, f"the broker refuses access to queue {topic}.error")
        source.refused = False
        assert [bytes(message.body) for message in intake.gather()] == [b"two"]
        assert health.checks()[QUEUE].ok


def test_the_queue_is_ready_only_as_long_as_the_loop_turns(connection: kombu.Connection, topic: str) -> None:
    clock = [100.0]
    health = Health(clock=lambda: clock[0])
    declare(connection, f"{topic}.info")
    intake = opened(connection, topic, health)
    with intake.consuming():
        for _ in range(3):
            clock[0] += LIMIT - 1
            intake.gather()
            assert health.checks()[QUEUE].ok
        clock[0] += LIMIT + 1
        assert not health.checks()[QUEUE].ok


def test_no_more_than_the_prefetch_is_taken_before_it_is_acknowledged(
    connection: kombu.Connection, topic: str
) -> None:
    declare(connection, f"{topic}.info")
    for n in range(6):
        publish(connection, f"{topic}.info", str(n).encode())
    intake = opened(connection, topic, Health())
    with intake.consuming():
        first = intake.gather()
        assert len(first) == 4
        acks = intake.acks(first)
        for message in first:
            acks.settle(message)
        acks.flush()
        assert [bytes(message.body) for message in intake.gather()] == [b"4", b"5"]


def test_what_comes_during_a_wait_is_in_the_next_gather(connection: kombu.Connection, topic: str) -> None:
    declare(connection, f"{topic}.info")
    intake = opened(connection, topic, Health())
    with intake.consuming():
        publish(connection, f"{topic}.info", b"meanwhile")
        intake.keep_alive(0.05, threading.Event())
        assert [bytes(message.body) for message in intake.gather()] == [b"meanwhile"]


def test_a_wait_ends_when_told_to_stop(connection: kombu.Connection, topic: str) -> None:
    stop = threading.Event()
    stop.set()
    opened(connection, topic, Health()).keep_alive(3600, stop)
