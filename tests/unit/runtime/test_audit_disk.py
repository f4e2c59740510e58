# SPDX-License-Identifier: Apache-2.0
"""An audit log on a full or a frozen disk: said in health, and the work goes on without its lines."""

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.core.audit import AuditEvent, AuditRecord
from bridge.core.extend import ExtendKey
from bridge.runtime import audit
from bridge.runtime.audit import StreamAudit
from tests.lab.waiting import until

_WRITE = os.write


def record() -> AuditRecord:
    return AuditRecord.of(ExtendKey("s", "v"), AuditEvent.RECEIVED, 1.0)


class Disk:
    """What os.write does to the log."""

    def __init__(self) -> None:
        self.full = False
        self.frozen = threading.Event()
        self.thawed = threading.Event()
        self.waiting = threading.Event()

    def write(self, fd: int, data: bytes) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        if self.frozen.is_set():
            self.waiting.set()
            self.thawed.wait(30)
        return _WRITE(fd, data)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    played = Disk()
    monkeypatch.setattr(os, "write", played.write)
    monkeypatch.setattr(audit, "_WRITE_LIMIT", 0.05)
    return played


def at_once(work: Callable[[], object]) -> bool:
    """Return whether the work ends, in a thread that is left behind otherwise."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(10)
    return not thread.is_alive()


def test_a_full_disk_is_said_until_a_line_is_written(disk: Disk, tmp_path: Path) -> None:
    log = StreamAudit("api", str(tmp_path / "log"))
    log.write(record())
    disk.full = True
    log.write(record(), record())
    assert not log.state().ok
    assert "2 audit lines are lost" in log.state().reason
    disk.full = False
    log.write(record())
    assert log.state().ok


def test_a_frozen_disk_holds_one_thread_and_the_others_go_on(disk: Disk, tmp_path: Path) -> None:
    lost: list[int] = []
    log = StreamAudit("api", str(tmp_path / "log"), on_lost=lost.append)
    log.write(record())
    disk.frozen.set()
    first = threading.Thread(target=log.write, args=(record(),), daemon=True)
    first.start()
    assert disk.waiting.wait(30)
    until(lambda: not log.state().ok, "the write is late", seconds=30)
    assert "has not returned" in log.state().reason
    assert at_once(lambda: [log.write(record()) for _ in range(50)])
    assert sum(lost) == 50
    disk.frozen.clear()
    disk.thawed.set()
    first.join(30)
    assert not first.is_alive()
    log.write(record())
    assert log.state().ok
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 3
    assert '"lost":50,' in lines[2], "the next line says how many are missing before it"


def test_lost_lines_are_not_said_for_ever_where_no_line_comes(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = StreamAudit("api", str(tmp_path / "log"))
    disk.full = True
    log.write(record())
    assert not log.state().ok
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + audit._SAID + 1)
    assert log.state().ok
