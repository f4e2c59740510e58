# SPDX-License-Identifier: Apache-2.0
"""The audit log's schema is what the code writes: every event, reason and outcome, and nothing else."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bridge.audit.schema import audit_schema
from bridge.core.audit import SCHEMA, AuditEvent, AuditRecord
from bridge.core.file_systems import FsState
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from bridge.journal.admin import DISCARDED
from bridge.runtime.audit import StreamAudit
from listener.verdicts import Kind
from tests.lab.trail import extend, lines, made_id


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    """As `extend-bridge audit schema` prints it."""
    read = audit_schema()
    jsonschema.Draft202012Validator.check_schema(read)
    return read


def test_names_every_event_reason_and_outcome_of_the_code(schema: dict[str, Any]) -> None:
    """A new member without its line in the schema is found here."""
    known = schema["properties"]
    assert set(known["event"]["enum"]) == {event.value for event in AuditEvent}
    assert set(known["reason"]["enum"]) == {reason.value for reason in Reason}
    outcomes = (
        {o.value for o in Outcome}
        | {state.value for state in FsState}
        | {kind.value for kind in Kind}
        | {"ok", "failed", DISCARDED}
    )
    assert set(known["outcome"]["enum"]) == outcomes
    assert known["schema"]["const"] == SCHEMA


@pytest.mark.parametrize("event", AuditEvent)
def test_every_field_of_a_record_is_described(schema: dict[str, Any], event: AuditEvent) -> None:
    """Of each event, with everything filled in."""
    record = AuditRecord(
        event=event, at=1.5, server=made_id(1), volume=made_id(2), host="h", project="p", extend_id=made_id(3),
        message_id=made_id(4), request_id="req-1", global_request_id="req-2", attempt=1, attempt_id=made_id(5),
        outcome="resized", reason="size_reached", seconds=0.25, data={"size": 1},
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )  # fmt: skip
    jsonschema.validate(json.loads(record.to_line("engine")), schema)


def test_a_line_as_it_is_written_to_a_file_is_described(schema: dict[str, Any], tmp_path: Path) -> None:
    """With its link in the chain: the first of a file and a later one."""
    log = StreamAudit("engine", str(tmp_path / "audit.log"))
    for _ in range(3):
        log.write(AuditRecord(event=AuditEvent.OVERDUE, at=1.5, volume=made_id(2)))
    for line in (tmp_path / "audit.log").read_text().splitlines():
        jsonschema.validate(json.loads(line), schema)


@pytest.mark.parametrize("result", ["resized", "unsupported", "parked", "open"])
def test_the_lines_of_an_extend_are_as_described(schema: dict[str, Any], result: str) -> None:
    """Sparse records as well."""
    for line in lines(extend(1, result=result)):
        jsonschema.validate(json.loads(line), schema)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"event": "vanished"}, "an unknown event"),
        ({"reason": "because"}, "an unknown reason"),
        ({"password": "x"}, "a key nobody described"),
        ({"time": "2026-11-01 12:00"}, "another form of time"),
        ({"volume": "vol-1"}, "an id that is none"),
    ],
)
def test_refuses_what_the_code_never_writes(schema: dict[str, Any], change: dict[str, Any], why: str) -> None:
    """A schema that takes everything says nothing."""
    line = json.loads(lines(extend(1))[-1]) | change
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(line, schema)
