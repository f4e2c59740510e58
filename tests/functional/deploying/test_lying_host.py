# SPDX-License-Identifier: Apache-2.0
"""What a hypervisor taken over can do with its agent's broker user: speak for itself to the engine, and no more."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import amqp.exceptions
import kombu
import pytest
import sqlalchemy as sa
from prometheus_client import CollectorRegistry

from bridge.core.extend import Arrival, Bytes, ExtendKey, gib, new_id
from bridge.core.inventory import DiskSeen, DomainSeen, GuestState, Inventory
from bridge.core.messages import HostMessage, Report
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from bridge.engine.reports import ReportsConsumer
from bridge.journal import migrate
from bridge.journal.accept import Journal
from bridge.journal.claims import Claims, NewAttempt
from bridge.journal.database import Database
from bridge.journal.reports import Reported
from bridge.journal.settings import JournalSettings
from bridge.journal.tables import extends
from bridge.runtime.audit import StreamAudit
from bridge.runtime.broker import (
    AGENT_EXCHANGE,
    AGENT_TOPIC,
    HOSTS_EXCHANGE,
    PARKED_QUEUE,
    REPORTS_EXCHANGE,
    REPORTS_QUEUE,
    QueueSpec,
    ensure_agent_exchange,
    ensure_queue,
    ensure_topic_way,
    ensure_way,
    kombu_connection,
)
from bridge.runtime.health import Health
from bridge.runtime.metrics import EngineMetrics
from bridge.runtime.publisher import NotPublishedError, SafePublisher
from bridge.runtime.retry import Backoff
from hostagent.reporter import ToEngine
from listener.retry_policy import SlowDelay
from tests.lab.rabbitmq import RabbitNode
from tests.lab.rights import Broker, documented, documented_topics
from tests.lab.waiting import until

pytestmark = pytest.mark.functional

LIAR: Final = "cmp-1.example"
VICTIM: Final = "cmp-2.example"
OTHER: Final = f"{AGENT_TOPIC}.cmp-2.example"
QUEUES: Final = (REPORTS_QUEUE, PARKED_QUEUE, SlowDelay.SHORT.queue, OTHER)


class Bus:
    """Ours, with another host on it; and the liar's connection to it."""

    def __init__(self, own: kombu.Connection, liar: kombu.Connection, engine_url: str) -> None:
        self.own, self.liar, self.engine_url = own, liar, engine_url

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
        ensure_topic_way(own, HOSTS_EXCHANGE, REPORTS_QUEUE)
        ensure_agent_exchange(own)
        kombu.Queue(OTHER, channel=own.default_channel).bind_to(AGENT_EXCHANGE, OTHER)
        yield Bus(own, liar, broker.url("lies", "engine", "bridge"))


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


@pytest.mark.parametrize(
    "key", [REPORTS_QUEUE, PARKED_QUEUE, OTHER, VICTIM, "#", "*", f"{LIAR}.x", "cmp-1xexample"]
)
def test_at_the_exchange_of_reports_it_writes_its_own_name_alone(bus: Bus, key: str) -> None:
    """And the agent may bind no queue to it."""
    before = bus.depths()
    with SafePublisher(bus.liar) as publisher, pytest.raises(NotPublishedError) as told:
        publisher.publish(REPORTS_QUEUE, b"{}", exchange=HOSTS_EXCHANGE, routing_key=key)
    assert told.value.reason is Reason.NOT_PERMITTED
    assert bus.depths() == before
    with refused(), bus.liar.channel() as channel:
        kombu.Queue(OTHER, channel=channel).bind_to(HOSTS_EXCHANGE, key)


def test_the_exchange_of_older_agents_is_closed_to_it(bus: Bus) -> None:
    with SafePublisher(bus.liar) as publisher, pytest.raises(NotPublishedError) as told:
        publisher.publish(REPORTS_QUEUE, b"{}", exchange=REPORTS_EXCHANGE)
    assert told.value.reason is Reason.NOT_PERMITTED


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


def test_a_host_may_write_under_its_own_name(bus: Bus) -> None:
    with SafePublisher(bus.liar) as publisher:
        publisher.publish(REPORTS_QUEUE, b"{}", exchange=HOSTS_EXCHANGE, routing_key=LIAR)
    channel = bus.own.default_channel
    assert channel.basic_get(REPORTS_QUEUE, no_ack=True).body in {b"{}", "{}"}
    assert [channel.basic_get(queue, no_ack=True) for queue in QUEUES] == [None] * len(QUEUES)


class Engine:
    """The reports' consumer of a live engine, on a journal of its own, with its own broker user."""

    def __init__(self, url: str, directory: Path) -> None:
        settings = JournalSettings(connection=f"sqlite:///{directory / 'journal.sqlite3'}")
        self.database = Database(settings)
        migrate.upgrade(self.database)
        self.audit = directory / "audit.log"
        self.journal = Journal(self.database)
        self.claims = Claims(self.database)
        self.consumer = ReportsConsumer(
            connect=lambda: kombu_connection(url, heartbeat=0, name="engine"),
            reported=Reported(self.database, backoff=Backoff(), host_timeout=60),
            on_due=lambda: None,
            health=Health(),
            metrics=EngineMetrics(CollectorRegistry()),
            audit=StreamAudit("engine", str(self.audit)),
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.consumer.run, args=(self._stop,), daemon=True)
        self._thread.start()

    def alarms(self) -> list[tuple[str, str]]:
        """Host and reason of each alarm so far."""
        lines = [json.loads(line) for line in self.audit.read_text().splitlines()] if self.audit.exists() else []
        return [(line["host"], line["reason"]) for line in lines if line["event"] == "alarm"]

    def given(self, key: ExtendKey, host: str) -> str:
        """Open an extend and write an order for this host; its attempt's id."""
        self.journal.accept([Arrival(key=key)])
        (extend,) = (x for x in self.claims.claim(10, report_within=60) if x.key == key)
        new = NewAttempt(id=new_id(), extend=extend, host=host, target=gib(2))
        self.claims.write_attempts([new])
        return new.id

    def state(self, key: ExtendKey) -> tuple[object, ...]:
        """What the journal holds of the newest extend of a disk."""
        one = sa.select(extends).where(extends.c.volume_id == key.volume_id).order_by(extends.c.opened_at.desc())
        return self.database.read(lambda c: tuple(c.execute(one).one()))

    def said_of(self, key: ExtendKey) -> list[tuple[str, str]]:
        """Event and host of each audit line about a volume."""
        lines = [json.loads(line) for line in self.audit.read_text().splitlines()]
        return [(line["event"], line["host"]) for line in lines if line.get("volume") == key.volume_id]

    def where(self, key: ExtendKey) -> list[tuple[str, str, bool]]:
        """Host, state and life of each that claims the server."""
        self.journal.accept([Arrival(key=key)])
        found = self.claims.locate(self.claims.claim(10, report_within=60), host_timeout=60)
        return [(at.host, at.state.value, at.fresh) for at in found.get(key.server_id, ())]

    def close(self) -> None:
        self._stop.set()
        self._thread.join(20)
        self.database.dispose()


@pytest.fixture
def engine(bus: Bus, tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(bus.engine_url, tmp_path)
    yield engine
    engine.close()


def said(host: str, inventory: Inventory | None, *, boot: str | None = None, seq: int = 1) -> bytes:
    message = HostMessage(host=host, boot_id=boot or new_id(), seq=seq, sent_at=1.0, inventory=inventory)
    return json.dumps(message.to_wire()).encode()


def guest(key: ExtendKey, size: int = 1) -> Inventory:
    disk = DiskSeen(volume_id=key.volume_id, size=Bytes(size))
    return Inventory(
        full=True, domains=(DomainSeen(server_id=key.server_id, state=GuestState.ACTIVE, disks=(disk,)),)
    )


def test_no_lie_changes_anything_of_another_host_and_the_alarm_names_the_liar(bus: Bus, engine: Engine) -> None:
    """With the permissions of etc/rabbitmq: whatever a host can publish is bound to its own name."""
    key = ExtendKey(new_id(), new_id())
    with SafePublisher(bus.own) as publisher:
        ToEngine(publisher, VICTIM).publish(said(VICTIM, guest(key)))
    until(lambda: engine.where(key) == [(VICTIM, "active", True)], "the victim's guest is known")
    lies = [
        said(VICTIM, Inventory(full=True)),  # its guests are gone
        said(VICTIM, Inventory(full=False, gone=(key.server_id,))),
        said(VICTIM, None),  # two agents under its name
        said(VICTIM, guest(key, 2**60)),  # its guest has the size
    ]
    with SafePublisher(bus.liar) as publisher:
        for lie in lies:
            publisher.publish(REPORTS_QUEUE, lie, exchange=HOSTS_EXCHANGE, routing_key=LIAR)
        publisher.publish(REPORTS_QUEUE, said(LIAR, None), exchange=HOSTS_EXCHANGE, routing_key=LIAR)
    until(lambda: (LIAR, "host_not_itself") in engine.alarms(), "the alarm names the liar")
    assert engine.where(key) == [(VICTIM, "active", True)]
    assert {host for host, _ in engine.alarms()} == {LIAR}


def report(attempt_id: str, key: ExtendKey, outcome: Outcome) -> bytes:
    """A message of the liar with one report, whose size would prove it."""
    told = Report(
        attempt_id=attempt_id, key=key, gen=1, outcome=outcome, reason=outcome.value, target=gib(2), after=gib(2)
    )
    message = HostMessage(host=LIAR, boot_id=new_id(), seq=1, sent_at=1.0, reports=(told,))
    return json.dumps(message.to_wire()).encode()


@pytest.mark.parametrize("outcome", [Outcome.RESIZED, Outcome.UNSUPPORTED, Outcome.GUEST_OFF])
def test_a_report_of_an_order_it_was_not_given_has_no_effect_and_the_alarm_names_it(
    bus: Bus, engine: Engine, outcome: Outcome
) -> None:
    """Not with the victim's own attempt, nor with one of its own for the victim's disk; no line says it ended."""
    victims, liars = ExtendKey(new_id(), new_id()), ExtendKey(new_id(), new_id())
    theirs, mine = engine.given(victims, VICTIM), engine.given(liars, LIAR)
    before = engine.state(victims)
    lies = [report(theirs, victims, outcome), report(mine, victims, outcome), report(new_id(), victims, outcome)]
    with SafePublisher(bus.liar) as publisher:
        for lie in lies:
            publisher.publish(REPORTS_QUEUE, lie, exchange=HOSTS_EXCHANGE, routing_key=LIAR)
            until(lambda: (LIAR, "host_not_ordered") in engine.alarms(), "the alarm names the liar")
        true = report(mine, liars, Outcome.RESIZED)
        publisher.publish(REPORTS_QUEUE, true, exchange=HOSTS_EXCHANGE, routing_key=LIAR)
    until(lambda: ("closed", LIAR) in engine.said_of(liars), "its own order is settled by its own report")
    assert engine.state(victims) == before
    assert engine.said_of(victims) == []


def test_an_older_way_does_not_speak_for_a_host_that_is_bound_to_its_name(bus: Bus, engine: Engine) -> None:
    """Also while agents of 0.1.0 are accepted, and the liar's user still has the permissions of then."""
    key = ExtendKey(new_id(), new_id())
    with SafePublisher(bus.own) as publisher:
        ToEngine(publisher, VICTIM).publish(said(VICTIM, guest(key)))
        until(lambda: engine.where(key) == [(VICTIM, "active", True)], "the victim's guest is known")
        publisher.publish(REPORTS_QUEUE, said(VICTIM, Inventory(full=True)), exchange=REPORTS_EXCHANGE)
        until(lambda: (VICTIM, "host_unproved") in engine.alarms(), "the message is refused")
        publisher.publish(REPORTS_QUEUE, said("older", None), exchange=REPORTS_EXCHANGE)
        until(lambda: engine.claims.living(["older"], host_timeout=60) == {"older"}, "an older agent is heard")
    assert engine.where(key) == [(VICTIM, "active", True)]
