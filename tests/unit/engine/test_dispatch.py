# SPDX-License-Identifier: Apache-2.0
"""A round of the engine on a real SQLite journal, with a Cinder and a broker that behave as told."""

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from keystoneauth1.adapter import Adapter
from keystoneauth1.noauth import NoAuth
from keystoneauth1.session import Session
from prometheus_client import CollectorRegistry

from bridge.core.encryption import Encryption
from bridge.core.extend import ExtendKey, gib, new_id
from bridge.core.messages import Order
from bridge.core.reasons import Reason
from bridge.engine.cinder import Attached, CinderAnswer, CinderReader, CinderVolume, Gone, NotNow
from bridge.engine.dispatch import CINDER, Dispatcher
from bridge.engine.locator import InventoryLocator
from bridge.engine.settings import EngineSettings
from bridge.journal import migrate
from bridge.journal.database import Database
from bridge.journal.settings import JournalSettings
from bridge.runtime.audit import StreamAudit
from bridge.runtime.config import BusSettings
from bridge.runtime.health import Health
from bridge.runtime.metrics import EngineMetrics
from bridge.runtime.rest import RestClient
from bridge.runtime.retry import Backoff
from bridge.runtime.wakeup import Wake
from tests.lab.slow_server import Slowness, SlowServer
from tests.unit.journal.conftest import Bench


class FakeCinder:
    """Answers as told, `volume` by default; counts what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, CinderAnswer] = {}
        self.attached: dict[str, list[str]] = {}
        self.asked: list[str] = []

    def volume(self, volume_id: str, *, global_request_id: str | None = None) -> CinderAnswer:
        self.asked.append(volume_id)
        rows = tuple(
            Attached(server_id=s, attachment_id=new_id(), host=None) for s in self.attached.get(volume_id, ())
        )
        return self.answers.get(volume_id) or CinderVolume(
            id=volume_id, size=gib(2), extending=False, attached=rows
        )

    def volumes(self, volume_ids: Sequence[str]) -> Mapping[str, CinderVolume]:
        return {}

    def connections(self, attachments: Sequence[Attached]) -> Mapping[str, Mapping[str, Any]]:
        return {}

    def connection(self, attachment: Attached, *, global_request_id: str | None = None) -> Mapping[str, Any] | None:
        return {"driver_volume_type": "local", "data": {}}


class FakeBroker:
    """Takes casts, but for hosts it was told to refuse."""

    def __init__(self) -> None:
        self.cast_to: dict[str, list[Order]] = {}
        self.refused: dict[str, Reason] = {}

    def cast(self, host: str, orders: Sequence[Order]) -> Reason | None:
        if host in self.refused:
            return self.refused[host]
        self.cast_to.setdefault(host, []).extend(orders)
        return None


class Rig:
    """A dispatcher on a bench."""

    def __init__(self, bench: Bench, audit: Path) -> None:
        self.bench, self.cinder, self.broker, self.health = bench, FakeCinder(), FakeBroker(), Health()
        settings = EngineSettings(
            journal=JournalSettings(connection="sqlite://"),
            bus=BusSettings(transport_url="memory://", heartbeat=30),
            backoff=Backoff(first=8, cap=64, floor=8),
        )
        self.wake = Wake(settings.wake)
        self.dispatcher = Dispatcher(
            settings=settings,
            work=bench.work,
            cinder=self.cinder,
            locator=InventoryLocator(bench.work, host_timeout=settings.host_timeout),
            agents=self.broker,
            wake=self.wake,
            health=self.health,
            metrics=EngineMetrics(CollectorRegistry()),
            audit=StreamAudit("engine", str(audit)),
            clock=lambda: bench.now,
        )

    def extend(self, host: str = "h1") -> ExtendKey:
        """An accepted extend of a server on a host."""
        key = ExtendKey(new_id(), new_id())
        self.cinder.attached[key.volume_id] = [key.server_id]
        self.bench.has(host, key, full=False)
        self.bench.arrive(key)
        return key


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """Everything in one place."""
    database = Database(JournalSettings(connection=f"sqlite:///{tmp_path / 'journal.sqlite3'}"))
    migrate.upgrade(database)
    rig = Rig(Bench(database), tmp_path / "audit.log")
    yield rig
    rig.wake.close()
    database.dispose()


def test_a_round_casts_each_host_its_orders_with_cinders_size(rig: Rig) -> None:
    first, second, third = rig.extend("h1"), rig.extend("h1"), rig.extend("h2")
    assert rig.dispatcher.round() == 3
    assert {o.key for o in rig.broker.cast_to["h1"]} == {first, second}
    (order,) = rig.broker.cast_to["h2"]
    assert (order.key, order.target, order.gen) == (third, gib(2), 1)
    assert rig.dispatcher.round() == 0


def test_under_debug_each_decision_is_told_with_what_cinder_and_the_hosts_said(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """Before, there was hardly any debug message of our own. Never one with connection data."""
    sent, waits = rig.extend("h1"), rig.extend("h1")
    rig.cinder.answers[waits.volume_id] = CinderVolume(id=waits.volume_id, size=gib(2), extending=True, attached=())
    with caplog.at_level(logging.DEBUG, "bridge"):
        rig.dispatcher.round()
    said = [line for record in caplog.records if "Cinder:" in (line := record.getMessage())]
    assert any(sent.volume_id in line and line.endswith("hosts: h1; failures 0, so cast to h1") for line in said)
    assert any(waits.volume_id in line and line.endswith("so wait: volume_extending") for line in said)
    assert "driver_volume_type" not in caplog.text


def test_the_order_of_an_encrypted_volume_names_its_key(rig: Rig) -> None:
    key, plain = rig.extend(), rig.extend()
    encryption = Encryption(key_id=new_id(), provider="luks2", control_location="front-end")
    rows = (Attached(server_id=key.server_id, attachment_id=new_id(), host=None),)
    rig.cinder.answers[key.volume_id] = CinderVolume(
        id=key.volume_id, size=gib(2), extending=False, attached=rows, encrypted=True, encryption=encryption
    )
    rig.dispatcher.round()
    assert {o.key: o.encryption for o in rig.broker.cast_to["h1"]} == {key: encryption, plain: None}


def test_the_order_says_whether_the_owner_asked_for_the_file_systems_growth(rig: Rig) -> None:
    asked, plain = rig.extend(), rig.extend()
    rows = (Attached(server_id=asked.server_id, attachment_id=new_id(), host=None),)
    rig.cinder.answers[asked.volume_id] = CinderVolume(
        id=asked.volume_id, size=gib(2), extending=False, attached=rows, grow_file_system=True
    )
    rig.dispatcher.round()
    assert {o.key: o.grow_file_system for o in rig.broker.cast_to["h1"]} == {asked: True, plain: False}


def test_a_volume_of_many_servers_is_asked_for_once(rig: Rig) -> None:
    volume_id = new_id()
    keys = [ExtendKey(new_id(), volume_id) for _ in range(3)]
    rig.cinder.attached[volume_id] = [k.server_id for k in keys]
    for key in keys:
        rig.bench.has("h1", key, full=False)
        rig.bench.arrive(key)
    rig.dispatcher.round()
    assert rig.cinder.asked == [volume_id]
    assert len(rig.broker.cast_to["h1"]) == 3


def test_a_host_whose_cast_is_refused_does_not_stop_the_others(rig: Rig) -> None:
    lost, sent = rig.extend("h1"), rig.extend("h2")
    rig.broker.refused["h1"] = Reason.UNDELIVERABLE
    rig.dispatcher.round()
    assert [o.key for o in rig.broker.cast_to["h2"]] == [sent]
    rig.broker.refused.clear()
    assert rig.dispatcher.round() == 0  # not at once
    rig.bench.now += 61  # longer than h1 is silent: it counts as down by now
    rig.bench.has("h1", lost)  # and its return makes the extend due
    rig.dispatcher.round()
    assert [o.key for o in rig.broker.cast_to["h1"]] == [lost]


def test_one_volume_that_is_gone_or_unreadable_does_not_stop_its_neighbours(rig: Rig) -> None:
    gone, odd, good = rig.extend(), rig.extend(), rig.extend()
    rig.cinder.answers[gone.volume_id] = Gone()
    rig.cinder.answers[odd.volume_id] = NotNow(Reason.CINDER_BAD_ANSWER)
    rig.dispatcher.round()
    assert [o.key for o in rig.broker.cast_to["h1"]] == [good]
    assert rig.bench.work.standing().open == 2
    assert rig.health.checks()[CINDER].ok


def test_a_cinder_that_is_away_shows_in_health_until_it_is_back(rig: Rig) -> None:
    key = rig.extend()
    rig.cinder.answers[key.volume_id] = NotNow(Reason.CINDER_REFUSED)
    rig.dispatcher.round()
    assert "may not read" in rig.health.checks()[CINDER].reason
    rig.cinder.answers.clear()
    rig.bench.now += 30
    rig.dispatcher.round()
    assert rig.health.checks()[CINDER].ok
    assert [o.key for o in rig.broker.cast_to["h1"]] == [key]


def test_an_engine_that_dies_after_the_claim_loses_nothing(rig: Rig) -> None:
    key = rig.extend()
    assert len(rig.bench.claim()) == 1  # and nothing more is heard of that engine
    assert rig.dispatcher.round() == 0
    rig.bench.now += 301
    rig.bench.has("h1", key)
    rig.dispatcher.round()
    assert [o.key for o in rig.broker.cast_to["h1"]] == [key]


def test_a_cinder_that_is_away_is_not_asked_for_every_volume_of_a_batch(rig: Rig) -> None:
    keys = [rig.extend() for _ in range(20)]
    for key in keys:
        rig.cinder.answers[key.volume_id] = NotNow(Reason.CINDER_UNREACHABLE)
    rig.dispatcher.round()
    assert len(rig.cinder.asked) == 3
    assert not rig.health.checks()[CINDER].ok
    assert rig.bench.work.standing().open == 20


def test_one_volume_cinder_does_not_answer_for_is_not_taken_for_cinder(rig: Rig) -> None:
    """Neighbours of a volume that times out every time are asked for all the same."""
    keys = [rig.extend() for _ in range(10)]
    for key in keys[:2]:
        rig.cinder.answers[key.volume_id] = NotNow(Reason.CINDER_UNREACHABLE)
    rig.dispatcher.round()
    assert len(rig.cinder.asked) == 10
    assert len(rig.broker.cast_to["h1"]) == 8


def test_a_slow_cinder_does_not_keep_the_first_waiting_for_the_last(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(6):
        rig.extend()
    seconds = iter(range(0, 1000, 1))
    monkeypatch.setattr("bridge.engine.dispatch.time.monotonic", lambda: next(seconds) / 4)
    asked_when_cast: list[int] = []
    cast = rig.broker.cast

    def noting(host: str, orders: Sequence[Order]) -> Reason | None:
        asked_when_cast.append(len(rig.cinder.asked))
        return cast(host, orders)

    monkeypatch.setattr(rig.broker, "cast", noting)
    rig.dispatcher.round()
    assert asked_when_cast[0] < 6
    assert len(rig.broker.cast_to["h1"]) == 6


def test_a_cinder_that_drips_holds_up_no_other_volume(rig: Rig) -> None:
    """It would drip for ever; the dispatcher leaves it at its deadline and casts what is answered."""
    slow, good = rig.extend("h1"), rig.extend("h2")
    with SlowServer(Slowness.BODY) as server:
        adapter = Adapter(Session(auth=NoAuth()), endpoint_override=server.url)
        reader = CinderReader(RestClient(adapter, timeout=0.3, group="cinder"))
        healthy = rig.cinder.volume

        def volume(volume_id: str, *, global_request_id: str | None = None) -> CinderAnswer:
            return (reader.volume if volume_id == slow.volume_id else healthy)(volume_id)

        rig.cinder.volume = volume  # type: ignore[method-assign]
        thread = threading.Thread(target=rig.dispatcher.round, daemon=True)
        thread.start()
        thread.join(120)
    assert [order.key for order in rig.broker.cast_to["h2"]] == [good]
    assert "h1" not in rig.broker.cast_to
