# SPDX-License-Identifier: Apache-2.0
"""The audit log in systemd's journal: its native protocol, nothing waits, nothing is lost without a count."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from bridge.core.audit import AuditEvent, AuditRecord
from bridge.core.errors import ConfigError
from bridge.runtime.audit import JournalAudit, open_audit

RECORD = AuditRecord(
    event=AuditEvent.CLOSED, at=1.5, server="s", volume="v", outcome="resized", data={"note": "two\nlines"}
)


@pytest.fixture
def journald() -> Iterator[socket.socket]:
    """Somebody who listens where journald would."""
    with TemporaryDirectory(prefix="eb-") as directory, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(Path(directory) / "socket"))
        yield journal


def test_each_line_is_an_entry_with_its_ids_as_fields(journald: socket.socket) -> None:
    """MESSAGE is the line as it stands in a file."""
    JournalAudit("engine", journald.getsockname()).write(RECORD, RECORD)
    for _ in range(2):
        entry = journald.recv(65536).decode()
        assert entry.endswith("\n")
        fields = dict(line.split("=", 1) for line in entry.splitlines())
        body, _, chain = fields["MESSAGE"].partition(',"chain":')
        assert body + "}" == RECORD.to_line("engine")
        assert chain.endswith('"}}')
        assert json.loads(fields["MESSAGE"])["data"]["note"] == "two\nlines"
        assert fields["EXTEND_BRIDGE_VOLUME"] == "v"
        assert fields["SYSLOG_IDENTIFIER"] == "extend-bridge-audit"
        assert "EXTEND_BRIDGE_HOST" not in fields


def test_a_value_with_a_line_end_cannot_add_a_field(journald: socket.socket) -> None:
    """A host's name comes from its host."""
    forged = AuditRecord(event=AuditEvent.CLOSED, at=1.0, host="h\nPRIORITY=0", volume="v")
    JournalAudit("engine", journald.getsockname()).write(forged)
    assert journald.recv(65536).decode().count("PRIORITY=") == 2  # the field, and inside the line as text
    JournalAudit("engine", journald.getsockname()).write(forged)
    assert b"\nPRIORITY=0" not in journald.recv(65536)


def test_a_journal_that_takes_nothing_stops_nobody_and_is_counted(journald: socket.socket) -> None:
    """Its socket is full, then gone."""
    lost: list[int] = []
    audit = JournalAudit("engine", journald.getsockname(), on_lost=lost.append)
    for _ in range(10_000):
        audit.write(RECORD)
        if lost:
            break
    assert lost
    Path(journald.getsockname()).unlink()
    audit.write(RECORD)
    assert sum(lost) == audit.lost == 2


def test_no_journal_is_said_at_the_start(tmp_path: Path) -> None:
    """As an audit file that cannot be written is."""
    with pytest.raises(ConfigError, match="journal is not available"):
        JournalAudit("engine", str(tmp_path / "none"))


def test_a_file_and_the_journal_is_one_too_many(tmp_path: Path) -> None:
    """Which of them the operator meant nobody can know."""
    with pytest.raises(ConfigError, match="set one of them"):
        open_audit("engine", str(tmp_path / "audit.log"), journald=True)
