# SPDX-License-Identifier: Apache-2.0
"""Ready means moving: checks that go bad by themselves, due work, loops, and the watchdog's word."""

import json
import logging
import socket
import threading
from pathlib import Path

import pytest

from bridge.runtime import daemon
from bridge.runtime.daemon import Daemon, Supervised
from bridge.runtime.health import HUNG, Health, InFlight, moving
from bridge.runtime.metrics import ReadyCollector, new_registry
from bridge.runtime.ops import ops_app
from tests.lab.waiting import until
from tests.unit.clock import PlayedClock


def test_a_word_is_good_for_its_time_and_goes_bad_by_itself(health: Health, clock: PlayedClock) -> None:
    health.ok("database", "a row was written", good_for=30)
    clock.now += 30
    assert health.ready()
    clock.now += 1
    check = health.checks()["database"]
    assert not check.ok
    assert check.reason == "this check was not updated for 31 s; before that: a row was written"
    health.ok("database", good_for=30)
    assert health.ready()


def test_a_word_without_an_end_stays(health: Health, clock: PlayedClock) -> None:
    health.ok("configuration")
    clock.now += 1e6
    assert health.ready()


def test_the_oldest_due_thing_makes_its_part_not_ready(health: Health, clock: PlayedClock) -> None:
    orders = InFlight(clock=clock)
    health.due("agent.orders", orders.oldest, what="order", limit=30)
    assert health.checks()["agent.orders"].reason == "no order is due"
    first, second = orders.begin(), orders.begin()
    clock.now += 31
    third = orders.begin()
    assert health.checks()["agent.orders"].reason == "the oldest due order has waited for 31 s"
    assert health.oldest_due() == {"agent.orders": 31}
    orders.end(first)
    assert not health.ready()
    orders.end(second)
    assert health.ready()
    assert len(orders) == 1
    orders.end(third)
    with orders.one():
        assert orders.oldest() == 0
    assert orders.oldest() is None


def test_a_loop_that_does_not_come_round_is_not_ready_then_hung(health: Health, clock: PlayedClock) -> None:
    health.loop("dispatch", within=30)
    clock.now += 31
    assert "has not moved for 31 s" in health.checks()["dispatch"].reason
    assert health.hung() == []
    clock.now += HUNG
    assert health.hung() == ["dispatch"]
    health.turn("dispatch")
    assert health.ready()
    health.rest("dispatch")
    clock.now += 1e6
    assert health.ready()
    assert health.hung() == []


def test_a_hung_loop_is_seen_through_its_parts_last_good_word(health: Health, clock: PlayedClock) -> None:
    health.loop("dispatch", within=30)
    health.ok("dispatch", "restarted")
    clock.now += 31
    assert not health.ready()


def test_what_goes_bad_by_itself_is_logged_once(
    health: Health, clock: PlayedClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    health.ok("database", good_for=30)
    for _ in range(5):
        clock.now += 20
        health.checks()
    assert [r.levelname for r in caplog.records] == ["INFO", "WARNING"]


def test_a_reason_that_changes_all_the_time_is_logged_every_half_minute(
    health: Health, clock: PlayedClock, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(60):
        health.bad("bus", "refused" if number % 2 else "timed out")
        clock.now += 1
    assert len(caplog.records) == 2


def test_a_supervised_body_is_watched_by_its_looks_at_the_stop_flag(clock: PlayedClock) -> None:
    health, at_work, go_on = Health(clock=clock), threading.Event(), threading.Event()

    def body(stop: threading.Event) -> None:
        while not stop.is_set():
            at_work.set()
            go_on.wait(120)
            at_work.clear()
            moving()
            stop.wait(120)  # a rest

    part = Supervised("part", body, health, moves_within=30)
    part.start()
    assert at_work.wait(120)
    clock.now += 31
    assert not health.ready()
    go_on.set()
    until(health.ready, "the part rests")
    clock.now += 1000
    assert health.ready()
    part.stop()
    assert part.join(120)
    assert "part" not in health.checks()


def test_the_watchdog_is_fed_only_while_all_loops_come_round(
    clock: PlayedClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    health = Health(clock=clock)
    heard: list[bytes] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setattr(daemon, "_BEAT", 0.01)
        made = Daemon("d", [], health=health)
        monkeypatch.setattr(made, "_install_signals", lambda: None)
        health.loop("dispatch", within=30)
        thread = threading.Thread(target=made.run)
        thread.start()
        while not heard or heard[-1] != b"WATCHDOG=1":
            heard.append(systemd.recv(100))
        clock.now += 1000
        systemd.settimeout(0.3)
        try:
            while True:  # words that were on their way, then none
                heard.append(systemd.recv(100))
        except TimeoutError:
            pass
        health.turn("dispatch")
        systemd.settimeout(60)
        assert systemd.recv(100) == b"WATCHDOG=1"
        made.stop()
        thread.join(120)


def test_the_ops_port_tells_liveness_by_the_loops(health: Health, clock: PlayedClock) -> None:
    said: list[str] = []
    app = ops_app(health, new_registry("test"))

    def live() -> dict[str, object]:
        body = b"".join(app({"PATH_INFO": "/healthz/live"}, lambda status, _: said.append(status)))
        answer: dict[str, object] = json.loads(body)
        return answer

    health.loop("dispatch", within=30)
    assert live() == {"live": True}
    clock.now += 1000
    assert live() == {"live": False, "hung": ["dispatch"]}
    assert [words[:3] for words in said] == ["200", "503"]


def test_metrics_carry_the_age_of_the_oldest_due_thing(health: Health) -> None:
    health.due("agent.orders", lambda: 12.5, what="order")
    health.due("agent.reports", lambda: None, what="report")
    found = {(m.name, *s.labels.values()): s.value for m in ReadyCollector(health).collect() for s in m.samples}
    assert found["extend_bridge_oldest_due_seconds", "agent.orders"] == 12.5
    assert found["extend_bridge_oldest_due_seconds", "agent.reports"] == 0
