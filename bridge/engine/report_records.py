# SPDX-License-Identifier: Apache-2.0
"""Audit records of what hosts report, so that the logs of the control plane tell the whole story."""

from typing import Any, Final

from bridge.core.audit import AuditEvent, AuditRecord
from bridge.core.file_systems import FileSystemSeen
from bridge.journal.handover import OpenedByMove
from bridge.journal.reports import SettledReport
from bridge.journal.states import Move

_EVENTS: Final = {
    Move.CLOSE: AuditEvent.CLOSED,
    Move.FAIL: AuditEvent.FAILED,
    Move.AGAIN: AuditEvent.REPORTED,
    Move.NEWER: AuditEvent.REOPENED,
    Move.NOTE: AuditEvent.LATE,
    Move.IGNORE: AuditEvent.LATE,
}


def report_records(settled: SettledReport, now: float) -> list[AuditRecord]:
    """Return audit records of the agent's steps, and of the decision on its report."""
    report, extend, attempt, decision = settled.report, settled.extend, settled.attempt, settled.decision
    if attempt is None or decision is None:
        return []
    common: dict[str, Any] = {
        "host": settled.host,
        "extend_id": attempt.extend_id,
        "attempt": attempt.number,
        "attempt_id": attempt.id,
        "request_id": extend.request_id if extend is not None else None,
        "global_request_id": extend.global_request_id if extend is not None else None,
        "traceparent": extend.traceparent if extend is not None else report.traceparent,
    }
    steps = [
        AuditRecord.of(
            report.key,
            AuditEvent.STEP,
            now,
            outcome="ok" if step.ok else "failed",
            seconds=step.seconds,
            data={"step": step.name, "detail": step.detail, "size": step.size},
            **common,
        )
        for step in report.steps
    ]
    sizes = {"before": report.before, "target": report.target, "after": report.after, "detail": report.detail}
    end = AuditRecord.of(
        report.key,
        _EVENTS[decision.move],
        now,
        outcome=decision.outcome.value,
        reason=str(decision.reason),
        seconds=now - extend.opened_at if extend is not None else None,
        data={k: v for k, v in sizes.items() if v not in (None, "")},
        **common,
    )
    return [*steps, end]


def opening_record(moved: OpenedByMove, now: float) -> AuditRecord:
    """Return the audit record of an extend that was opened because its guest moved."""
    return AuditRecord.of(
        moved.key,
        AuditEvent.ACCEPTED,
        now,
        host=moved.host,
        extend_id=moved.extend_id,
        global_request_id=moved.global_request_id,
        traceparent=moved.traceparent,
        data={"source": "moved"},
    )


def file_system_records(host: str, seen: FileSystemSeen, now: float) -> list[AuditRecord]:
    """Return audit records of the commands in a guest, and of how its file system stands after them."""
    ids: dict[str, Any] = {"request_id": seen.request_id, "global_request_id": seen.global_request_id}
    steps = [
        AuditRecord.of(
            seen.key,
            AuditEvent.FILESYSTEM,
            now,
            host=host,
            outcome="ok" if step.ok else "failed",
            seconds=step.seconds,
            data={"step": step.name, "detail": step.detail},
            **ids,
        )
        for step in seen.steps
    ]
    sizes = {"disk": seen.disk, "size": seen.size, "unused": seen.unused}
    words = {"layout": seen.layout.value, "type": seen.kind, "mount_point": seen.mount_point}
    end = AuditRecord.of(
        seen.key,
        AuditEvent.FILESYSTEM,
        now,
        host=host,
        outcome=seen.state.value,
        reason=seen.reason,
        data={name: value for name, value in {**sizes, **words, "follow": seen.follow.value}.items() if value},
        **ids,
    )
    return [*steps, end]
