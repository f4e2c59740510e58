# SPDX-License-Identifier: Apache-2.0
"""Under debug = true the engine tells its decisions, and no secret."""

import logging
import time

import pytest

from bridge.core.audit import AuditEvent, AuditRecord
from bridge.runtime.audit import StreamAudit


def test_each_audit_record_is_a_debug_line_for_a_person(caplog: pytest.LogCaptureFixture) -> None:
    """Before, debug = true showed other libraries only."""
    log = StreamAudit("engine", "/dev/null")
    record = AuditRecord(
        event=AuditEvent.WAITING, at=time.time(), server="s", volume="v", reason="volume_extending", data={"n": 1}
    )
    log.write(record)
    assert caplog.records == []
    with caplog.at_level(logging.DEBUG, "bridge.runtime.audit"):
        log.write(record)
    assert "waiting server=s volume=v reason=volume_extending n=1" in caplog.text
