# SPDX-License-Identifier: Apache-2.0
"""SIGHUP: what may change is taken and named, a broken file changes nothing; the audit log's loss is counted."""

import logging
from pathlib import Path

import pytest

from bridge.core.audit import AuditEvent, AuditRecord
from bridge.runtime import config
from bridge.runtime.audit import StreamAudit


def test_a_changed_option_is_taken_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`debug` is one that may change while a daemon runs."""
    path = tmp_path / "x.conf"
    path.write_text("[DEFAULT]\ndebug = false\n")
    conf = config.load("test", [], ["--config-file", str(path)], description="")
    path.write_text("[DEFAULT]\ndebug = true\n")
    with caplog.at_level(logging.WARNING):
        config.reload(conf)
    assert conf.debug is True
    assert "[DEFAULT] debug: false -> true" in caplog.text


@pytest.mark.parametrize("text", [None, b"[DEFAULT\nx", b"[DEFAULT]\ndebug = perhaps\n", b"\xff\n"])
def test_a_file_that_cannot_be_read_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: bytes | None
) -> None:
    """And ends nothing."""
    path = tmp_path / "x.conf"
    path.write_text("[DEFAULT]\ndebug = true\n")
    conf = config.load("test", [], ["--config-file", str(path)], description="")
    path.unlink() if text is None else path.write_bytes(text)
    config.reload(conf)
    assert conf.debug is True
    assert "nothing is changed" in caplog.text


def test_audit_lines_that_a_full_disk_refuses_are_counted_and_do_not_stop_the_work() -> None:
    """The device that is always full."""
    lost: list[int] = []
    audit = StreamAudit("engine", "/dev/full", on_lost=lost.append)
    record = AuditRecord(event=AuditEvent.ACCEPTED, at=1.0)
    audit.write(record, record)
    audit.write(record)
    assert lost == [2, 1]
    assert audit.lost == 3
