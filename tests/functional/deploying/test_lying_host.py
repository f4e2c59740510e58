# SPDX-License-Identifier: Apache-2.0
"""What a hypervisor taken over can do with its agent's broker user: speak for itself to the engine, and no more."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import amqp.exceptions
import kombu
import pytest

from bridge.core.reasons import Reason
from bridge.runtime.broker import (
    AGENT_EXCHANGE,
    AGENT_TOPIC,
    PARKED_QUEUE,
    REPORTS_EXCHANGE,
    REPORTS_QUEUE,
    QueueSpec,
    ensure_queue,
    ensure_way,
    kombu_connection,
)
from bridge.runtime.publisher import NotPublishedError, SafePublisher
from listener.retry_policy import SlowDelay
from tests.lab.rabbitmq import RabbitNode
from tests.lab.rights import Broker, documented, documented_topics

pytestmark = pytest.mark.functional

LIAR: Final = "cmp-1.example"
OTHER: Final = f"{AGENT_TOPIC}.cmp-2.example"
QUEUES: Final = (REPORTS_QUEUE, PARKED_QUEUE, SlowDelay.SHORT.queue, OTHER)


class Bus:
    """Ours, with another host on it; and the liar's connection to it."""

    def __init__(self, own: kombu.Connection, liar: kombu.Connection) -> None:
        self.own, self.liar = own, liar

    def depths(self) -> list[int]:
        """Messages in each of QUEUES."""
        with self.own.channel() as channel:
            return [channel.queue_declare(queue, passive=True).message_count for queue in QUEUES]


@pytest.fixture(scope="module")
def bus(rabbit: RabbitNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bus]:
    """As the engine, a listener and another host's agent have made it."""
    broker = Broker(rabbit, tmp_path_factory.mktemp("rights"))
    broker.make({"lies": documented(LIAR)}, documented_topics(LIAR))
    with (
        kombu_connection(broker.own("lies", "bridge"), heartbeat=0, name="test") as own,
        kombu_connection(broker.url("lies", "hostagent", "bridge"), heartbeat=0, name="liar") as liar,
    ):
        for queue in QUEUES:
            ensure_queue(own, QueueSpec(name=queue))
        ensure_way(own, REPORTS_EXCHANGE, REPORTS_QUEUE)
        orders = kombu.Exchange(AGENT_EXCHANGE, type="topic", channel=own.default_channel)
        orders.declare()
        kombu.Queue(OTHER, channel=own.default_channel).bind_to(orders, OTHER)
        yield Bus(own, liar)


@contextmanager
def refused() -> Iterator[None]:
    """By the broker, not by chance."""
    with pytest.raises(amqp.exceptions.AccessRefused):
        yield


@pytest.mark.parametrize("queue", QUEUES)
def test_it_writes_no_queue_by_the_default_exchange(bus: Bus, queue: str) -> None:
    """Another host's orders, the lanes; its reports have a way of their own."""
    before = bus.depths()
    with SafePublisher(bus.liar) as publisher, pytest.raises(NotPublishedError) as told:
        publisher.publish(queue, b"{}")
    assert told.value.reason is Reason.NOT_PERMITTED
    assert bus.depths() == before


@pytest.mark.parametrize("queue", [PARKED_QUEUE, SlowDelay.SHORT.queue, OTHER])
def test_the_exchange_of_reports_leads_to_no_other_queue(bus: Bus, queue: str) -> None:
    """And the agent may bind none to it."""
    before = bus.depths()
    with SafePublisher(bus.liar) as publisher, pytest.raises(NotPublishedError) as told:
        publisher.publish(queue, b"{}", exchange=REPORTS_EXCHANGE)
    assert told.value.reason is Reason.RETURNED
    assert bus.depths() == before
    with refused(), bus.liar.channel() as channel:
        kombu.Queue(queue, channel=channel).bind_to(REPORTS_EXCHANGE, queue)


def test_it_casts_no_orders(bus: Bus) -> None:
    before = bus.depths()
    with SafePublisher(bus.liar) as publisher, pytest.raises(NotPublishedError) as told:
        publisher.publish(OTHER, b"{}", exchange=AGENT_EXCHANGE)
    assert told.value.reason is Reason.NOT_PERMITTED
    assert bus.depths() == before


@pytest.mark.parametrize("key", [OTHER, "#", f"{AGENT_TOPIC}.*"])
def test_it_has_no_queue_of_its_own_bound_to_the_orders_of_others(bus: Bus, key: str) -> None:
    with bus.liar.channel() as channel:
        mine = kombu.Queue(f"{AGENT_TOPIC}.{LIAR}", channel=channel)
        mine.queue_declare()
        mine.bind_to(AGENT_EXCHANGE, f"{AGENT_TOPIC}.{LIAR}")
    with refused(), bus.liar.channel() as channel:
        kombu.Queue(f"{AGENT_TOPIC}.{LIAR}", channel=channel).bind_to(AGENT_EXCHANGE, key)


@pytest.mark.parametrize("queue", QUEUES)
def test_it_reads_empties_and_deletes_nothing_of_others(bus: Bus, queue: str) -> None:
    for method in ("basic_get", "queue_purge", "queue_delete"):
        with refused(), bus.liar.channel() as channel:
            getattr(channel, method)(queue)


def test_it_speaks_to_the_engine(bus: Bus) -> None:
    with SafePublisher(bus.liar) as publisher:
        publisher.publish(REPORTS_QUEUE, b"{}", exchange=REPORTS_EXCHANGE)
    channel = bus.own.default_channel
    assert channel.basic_get(REPORTS_QUEUE, no_ack=True).body in {b"{}", "{}"}
    assert [channel.basic_get(queue, no_ack=True) for queue in QUEUES] == [None] * len(QUEUES)
