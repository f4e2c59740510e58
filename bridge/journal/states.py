# SPDX-License-Identifier: Apache-2.0
"""The states of an extend, and the decisions on its reports, as values.

        arrival                claim                     verified report, gen == wanted_gen
    ──────────────▶ DUE ──────────────▶ DISPATCHED ──────────────────────────────────────▶ CLOSED
                     ▲  ▲                 │  │                                                ▲
                     │  └─────────────────┘  │  a guard or no host can (failed, alarm),       │
                     │   retryable outcome,  └── volume gone, detached ───────────────────────┘
                     │   no report in time,
                     │   newer generation
                     └── arrival (wanted_gen + 1), also while DISPATCHED

`overdue` is a mark, not a state, because time never ends an extend. A row closes only by a report on an attempt of
the newest generation. The report must have verified the size against the target in the attempt's record.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from bridge.core.audit import AuditEvent, AuditRecord
from bridge.core.extend import GIB, Bytes, ExtendKey
from bridge.core.messages import Report
from bridge.core.outcome import THEN, Outcome, Then
from bridge.core.reasons import Reason
from bridge.runtime.retry import Backoff


class State(StrEnum):
    """The state of an extend."""

    DUE = "due"  # open: to be dispatched at due_at
    DISPATCHED = "dispatched"  # open: an order is on its way; due again at due_at when no report came
    CLOSED = "closed"  # ended; outcome says how


@dataclass(frozen=True, slots=True, kw_only=True)
class Extend:
    """An open row of the journal, as read in the transaction that decides on it. Times in epoch seconds."""

    id: str
    key: ExtendKey
    wanted_gen: int
    attempt: int
    failures: int
    opened_at: float
    request_id: str | None
    global_request_id: str | None
    traceparent: str | None = None
    unreported: bool = False  # claimed again because no host reported in time

    def record(self, event: AuditEvent, at: float, **more: Any) -> AuditRecord:
        """Return the audit record of an event of this extend, under its request ids."""
        return AuditRecord.of(
            self.key, event, at, extend_id=self.id, request_id=self.request_id,
            global_request_id=self.global_request_id, attempt=self.attempt, traceparent=self.traceparent, **more,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """The record of an order, written before the cast; a report is judged against this record alone."""

    id: str
    extend_id: str
    key: ExtendKey
    host: str
    number: int
    gen: int
    target: Bytes
    ended: bool


class Move(StrEnum):
    """The effect of a report on its extend."""

    CLOSE = "close"  # ends it with the outcome
    FAIL = "fail"  # ends it with the outcome, alarm
    AGAIN = "again"  # due again at due_at
    NEWER = "newer"  # this attempt is done, a newer generation is wanted: due now
    NOTE = "note"  # recorded on the attempt, nothing more
    IGNORE = "ignore"  # a duplicate, or not this host's attempt at this disk


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleDecision:
    """The move and its values: `due_at` for AGAIN and NEWER, `failures` the new count of failures in a row."""

    move: Move
    outcome: Outcome
    reason: str
    due_at: float | None = None
    failures: int = 0


_VERIFIED_BY_SIZE: Final = frozenset({Outcome.RESIZED, Outcome.ALREADY})
_FINAL: Final = frozenset(outcome for outcome, then in THEN.items() if then in {Then.CLOSE, Then.FAIL, Then.DROP})


def settle(
    extend: Extend | None,
    attempt: Attempt,
    report: Report,
    *,
    host: str,
    siblings_pending: bool,
    now: float,
    backoff: Backoff,
) -> SettleDecision:
    """Decide the effect of a report. `extend` is None if the row has been closed meanwhile.

    `siblings_pending`: another host got an order in the same dispatch (a migration) and has not reported yet. Then
    "off" does not end the extend, because the guest may run over there and have left a definition behind.
    """
    outcome, reason = believed(attempt, report)
    if attempt.ended or not_its_order(attempt, report, host) is not None:
        return SettleDecision(move=Move.IGNORE, outcome=outcome, reason=reason)
    if extend is None:
        return SettleDecision(move=Move.NOTE, outcome=outcome, reason=reason)
    if outcome in _FINAL and not (outcome is Outcome.GUEST_OFF and siblings_pending):
        if attempt.gen < extend.wanted_gen:
            return SettleDecision(move=Move.NEWER, outcome=outcome, reason=Reason.NEWER_GENERATION, due_at=now)
        move = Move.FAIL if THEN[outcome] is Then.FAIL else Move.CLOSE
        return SettleDecision(move=move, outcome=outcome, reason=reason)
    if attempt.number < extend.attempt or siblings_pending:
        return SettleDecision(move=Move.NOTE, outcome=outcome, reason=reason)
    failures = extend.failures + 1
    return SettleDecision(
        move=Move.AGAIN, outcome=outcome, reason=reason, due_at=now + backoff.delay(failures), failures=failures
    )


def not_its_order(attempt: Attempt, report: Report, host: str) -> str | None:
    """Return how the report contradicts the record of its order, or None. Such a report has no effect."""
    if attempt.host != host:
        return f"attempt {attempt.id} was given to host {attempt.host}"
    if attempt.key != report.key:
        return (
            f"attempt {attempt.id} is for volume {attempt.key.volume_id} on server {attempt.key.server_id}, "
            f"reported for volume {report.key.volume_id} on server {report.key.server_id}"
        )
    return None


def is_final(attempt: Attempt, report: Report) -> bool:
    """Return True if the outcome leaves nothing to try on this generation, whatever other hosts report."""
    return believed(attempt, report)[0] in _FINAL - {Outcome.GUEST_OFF}


def believed(attempt: Attempt, report: Report) -> tuple[Outcome, str]:
    """Return the outcome as far as the report proves it: a size that was not read back is not reached."""
    overhead = report.overhead if report.overhead < GIB else 0
    proven = report.after is not None and report.after + overhead >= attempt.target
    if report.outcome in _VERIFIED_BY_SIZE and not proven:
        return Outcome.ERROR, Reason.NOT_VERIFIED
    return report.outcome, report.reason
