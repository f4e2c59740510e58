# SPDX-License-Identifier: Apache-2.0
"""Supervised threads, health, back-off, the audit log."""

import json
import logging
import threading
import time
from pathlib import Path

import pytest

from bridge.core.audit import AuditEvent, AuditRecord
from bridge.runtime.audit import StreamAudit
from bridge.runtime.daemon import Daemon, Supervised
from bridge.runtime.health import Health
from bridge.runtime.retry import Backoff


def test_a_body_that_raises_is_logged_and_runs_again(caplog: pytest.LogCaptureFixture) -> None:
    runs: list[int] = []
    twice = threading.Event()
    health = Health()

    def body(stop: threading.Event) -> None:
        runs.append(1)
        if len(runs) == 1:
            raise ValueError("one bad thing")
        twice.set()
        stop.wait()

    part = Supervised("part", body, health)
    part.start()
    assert twice.wait(120)
    part.stop()
    assert part.join(120)
    assert "part is not ready: failed: ValueError" in caplog.text
    assert health.checks()["part"].ok


def test_parts_stop_in_reverse_order_and_a_late_one_is_told() -> None:
    ended: list[str] = []

    class Noted:
        def __init__(self, name: str, in_time: bool = True) -> None:
            self.name, self.in_time = name, in_time

        def start(self) -> None: ...

        def stop(self) -> None:
            ended.append(self.name)

        def join(self, seconds: float) -> bool:
            return self.in_time

    with Daemon("d", [Noted("a"), Noted("b")]).running() as all_ended:
        pass
    assert (ended, all_ended()) == (["b", "a"], True)
    with Daemon("d", [Noted("c", in_time=False)]).running() as all_ended:
        pass
    assert not all_ended()


def test_health_says_each_change_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    health = Health()
    health.expect("broker")
    assert not health.ready()
    for _ in range(3):
        health.bad("broker", "connection refused")
    for _ in range(3):
        health.ok("broker")
    assert health.ready()
    assert [r.message for r in caplog.records] == [
        "broker is not ready: connection refused",
        "broker is ready: ok",
    ]


@pytest.mark.parametrize("attempt", [-1, 0, 1, 5, 64, 10**9])
def test_a_back_off_stays_between_its_floor_and_its_cap(attempt: int) -> None:
    policy = Backoff(first=1, cap=600, floor=0.5)
    assert all(0.5 <= policy.delay(attempt) <= 600 for _ in range(50))


def test_a_back_off_grows_with_the_attempts() -> None:
    policy = Backoff(first=1, cap=600)
    assert max(policy.delay(1) for _ in range(200)) <= 1
    assert max(policy.delay(12) for _ in range(200)) > 100


def record(volume: str = "v") -> AuditRecord:
    """A record."""
    return AuditRecord(event=AuditEvent.ACCEPTED, at=1795348580.5, volume=volume, seconds=0.12345678)


def test_an_audit_line_is_json_with_a_utc_time_and_no_empty_keys(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    StreamAudit("api", str(path)).write(record("a\nb"))
    line = json.loads(path.read_text())
    assert line.pop("chain")["seq"] == 0
    assert line == {
        "schema": 1,
        "time": "2026-11-22T11:56:20.500000Z",
        "part": "api",
        "event": "accepted",
        "volume": "a\nb",
        "seconds": 0.123457,
    }
    assert path.read_text().count("\n") == 1


def test_the_audit_log_follows_a_file_that_logrotate_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audit.log"
    log = StreamAudit("api", str(path))
    log.write(record("before"))
    path.rename(tmp_path / "audit.log.1")
    later = time.monotonic() + 10
    monkeypatch.setattr("bridge.runtime.audit.time.monotonic", lambda: later)
    log.write(record("after"))
    assert "before" in (tmp_path / "audit.log.1").read_text()
    assert "after" in path.read_text()


def test_lines_that_cannot_be_written_are_counted_and_stop_nothing(caplog: pytest.LogCaptureFixture) -> None:
    log = StreamAudit("api", "/dev/full")
    log.write(record())
    log.write(record(), record())
    assert log.lost == 3
    assert caplog.text.count("lines are lost") == 1
