# SPDX-License-Identifier: Apache-2.0
"""Logs whose reader stopped, whose disk is full, or whose directory is gone: the code that logs goes on."""

import fcntl
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from logging.handlers import WatchedFileHandler
from pathlib import Path

import pytest

from bridge.core.audit import AuditEvent, AuditRecord
from bridge.runtime import log_output
from bridge.runtime.audit import StreamAudit
from bridge.runtime.log_output import Output, OutputStream
from tests.lab.paths import ROOT

_SECONDS = 60.0


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def _fill(writer: int) -> None:
    flags = fcntl.fcntl(writer, fcntl.F_GETFL)
    fcntl.fcntl(writer, fcntl.F_SETFL, flags | os.O_NONBLOCK)
    try:
        while True:
            os.write(writer, b"x" * 4095 + b"\n")
    except BlockingIOError:
        pass
    finally:
        fcntl.fcntl(writer, fcntl.F_SETFL, flags)


def _drain(reader: int) -> bytes:
    os.set_blocking(reader, False)
    pieces = []
    while True:
        try:
            pieces.append(os.read(reader, 65536))
        except BlockingIOError:
            return b"".join(pieces)


def test_lines_for_a_reader_that_stopped_are_dropped_counted_and_said(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    stream = OutputStream(Output(writer, patience=0.01))
    _fill(writer)
    ended = threading.Event()

    def log() -> None:
        for number in range(1000):
            stream.write(f"line {number}\n")
        ended.set()

    threading.Thread(target=log, daemon=True).start()
    assert ended.wait(_SECONDS)
    _drain(reader)
    stream.write("back\n")
    assert _drain(reader).splitlines()[-2:] == [
        b"1000 lines of this log were dropped: their reader did not read", b"back",
    ]  # fmt: skip


def test_a_line_longer_than_the_room_is_ended_before_the_next(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    stream = OutputStream(Output(writer, patience=0.01))
    stream.write("a" * 200_000 + "\n")
    first = _drain(reader)
    assert 0 < len(first) < 200_000
    stream.write("b\n")
    assert _drain(reader).startswith(b"\n1 lines")


def test_a_socket_whose_reader_stopped_costs_no_wait() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        output = Output(ours.fileno(), patience=0.01)
        while output.put(b"x" * 4096) == 4096:
            pass
        assert output.put(b"y\n") == 0
        theirs.recv(1 << 20)
        assert output.put(b"z\n") == 2


def test_audit_lines_for_a_reader_that_stopped_are_counted_as_lost(tmp_path: Path) -> None:
    path, lost = tmp_path / "audit.fifo", list[int]()
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    audit = StreamAudit("api", str(path), on_lost=lost.append)
    ended = threading.Event()

    def write() -> None:
        for _ in range(2000):
            audit.write(AuditRecord(event=AuditEvent.ACCEPTED, at=1.0, server="s"))
        ended.set()

    threading.Thread(target=write, daemon=True).start()
    assert ended.wait(_SECONDS)
    assert sum(lost) == audit.lost > 0
    os.close(reader)


@pytest.fixture
def root_handler(tmp_path: Path) -> Iterator[tuple[WatchedFileHandler, Path]]:
    directory = tmp_path / "logs"
    directory.mkdir()
    handler = WatchedFileHandler(directory / "x.log")
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        log_output.install()
        yield handler, directory
    finally:
        root.removeHandler(handler)


def test_a_directory_of_logs_that_is_gone_raises_nothing_in_the_code_that_logs(
    root_handler: tuple[WatchedFileHandler, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    _, directory = root_handler
    (directory / "x.log").unlink()
    directory.rmdir()
    for _ in range(3):
        logging.getLogger("bridge.test").error("x")
    assert capfd.readouterr().err.count("log lines could not be written") <= 1


def test_a_full_disk_is_said_once_and_not_by_a_traceback_for_each_line() -> None:
    program = (
        "import logging; from bridge.runtime import log_output\n"
        "root = logging.getLogger(); root.addHandler(logging.FileHandler('/dev/full')); log_output.install()\n"
        "for _ in range(50): root.error('x')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=_SECONDS, check=True
    )
    assert "log lines could not be written" in done.stderr
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) < 5


def test_a_process_started_without_standard_error_logs_to_nowhere() -> None:
    program = (
        "import logging, sys; from bridge.runtime import log_output\n"
        "root = logging.getLogger(); root.addHandler(logging.StreamHandler())\n"
        "root.addHandler(logging.FileHandler('/dev/full')); log_output.install()\n"
        "root.error('x'); assert sys.stderr is None; print('ended')\n"
    )
    command = f'exec "{sys.executable}" -c "$PROGRAM" 2>&-'
    done = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, env={**os.environ, "PROGRAM": program}, capture_output=True, text=True,
        timeout=_SECONDS, check=False,
    )  # fmt: skip
    assert done.stdout == "ended\n"
