# SPDX-License-Identifier: Apache-2.0
"""The rows a batch of reports reads and writes, in few statements: each report of a fleet passes here.

Statements are built once: building them costs more than running them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from bridge.core.extend import Bytes
from bridge.core.messages import Report
from bridge.core.trail import Event
from bridge.journal.claim_rows import EXTEND_COLUMNS, extend_of
from bridge.journal.prepared import Prepared, PreparedForRows, names
from bridge.journal.states import Attempt, Decision, Extend, Move, State, is_final
from bridge.journal.tables import attempts, extends, transitions

ENDS: Final = frozenset({Move.CLOSE, Move.FAIL})
_EVENTS: Final[Mapping[Move, Event]] = {
    Move.CLOSE: Event.CLOSED,
    Move.FAIL: Event.FAILED,
    Move.AGAIN: Event.REPORTED,
    Move.NEWER: Event.REOPENED,
    Move.NOTE: Event.LATE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """One report and what it did. `extend` is None for a report that came after the end."""

    host: str
    report: Report
    attempt: Attempt | None
    extend: Extend | None
    decision: Decision | None


def _read_of(size: int) -> sa.Select[Any]:
    """The attempts and their extends, locked: another engine may have a copy of the same report in hand."""
    return (
        sa.select(
            attempts.c.id, attempts.c.host, attempts.c.number, attempts.c.gen, attempts.c.target,
            attempts.c.ended_at, extends.c.open, *EXTEND_COLUMNS,
        )
        .join(extends, extends.c.id == attempts.c.extend_id)
        .where(attempts.c.id.in_(names("b_id", size, attempts.c.id.type)))
        .order_by(extends.c.id)
        .with_for_update()
    )  # fmt: skip


def _end_attempts(size: int) -> sa.Update:
    """One statement for many attempts: a round trip for each is what a report would cost most on a server."""
    ids = names("b_id", size, attempts.c.id.type)

    def each(name: str, kind: sa.types.TypeEngine[Any]) -> sa.Case[Any]:
        return sa.case(*((attempts.c.id == i, v) for i, v in zip(ids, names(name, size, kind), strict=True)))

    return (
        sa.update(attempts)
        .where(attempts.c.id.in_(ids))
        .values(
            ended_at=sa.bindparam("b_now"),
            outcome=sa.bindparam("b_outcome"),
            reason=sa.bindparam("b_reason"),
            size_before=each("b_before", attempts.c.size_before.type),
            size_after=each("b_after", attempts.c.size_after.type),
        )
    )


def _this_extend(ids: Sequence[Any]) -> sa.Update:
    return (
        sa.update(extends)
        .where(extends.c.id.in_(ids))
        .values(outcome=sa.bindparam("b_outcome"), reason=sa.bindparam("b_reason"))
    )


def _close_of(size: int) -> sa.Update:
    return _this_extend(names("b_id", size, extends.c.id.type)).values(
        state=State.CLOSED.value, open=sa.null(), closed_at=sa.bindparam("b_now"), waiting_for=sa.null()
    )


def _note_of(size: int) -> sa.Insert:
    columns = ("extend_id", "event", "outcome", "reason", "host", "request_id", "global_request_id")
    return sa.insert(transitions).values(
        [
            {
                "at": sa.bindparam("at", type_=transitions.c.at.type),
                **{name: sa.bindparam(f"{name}{number}", type_=transitions.c[name].type) for name in columns},
            }
            for number in range(size)
        ]
    )


_READ: Final = PreparedForRows(_read_of, most=48)
_END_ATTEMPTS: Final = PreparedForRows(_end_attempts, most=12)
_CLOSE: Final = PreparedForRows(_close_of, most=40)
_NOTE: Final = PreparedForRows(_note_of, most=7, exact=True)
_AGAIN: Final = Prepared(
    _this_extend([sa.bindparam("b_id")]).values(
        state=State.DUE.value, due_at=sa.bindparam("b_due_at"), failures=sa.bindparam("b_failures")
    )
)
_PENDING: Final = sa.select(attempts.c.id, attempts.c.extend_id, attempts.c.number, attempts.c.host).where(
    attempts.c.extend_id.in_(sa.bindparam("ids", expanding=True)), attempts.c.ended_at.is_(None)
)


def read_attempts(connection: sa.Connection, ids: set[str]) -> tuple[dict[str, Attempt], dict[str, Extend]]:
    """The attempts of these ids, and those of their extends that are open."""
    known: dict[str, Attempt] = {}
    rows: dict[str, Extend] = {}
    for row in _READ.run(connection, [{"b_id": i} for i in sorted(ids)], {}):
        attempt_id, host, number, gen, target, ended_at, is_open, *columns = row
        extend = extend_of(columns)
        known[attempt_id] = Attempt(
            id=attempt_id,
            extend_id=extend.id,
            host=host,
            number=number,
            gen=gen,
            target=Bytes(target),
            ended=ended_at is not None,
        )
        if is_open:
            rows[extend.id] = extend
    return known, rows


def awaited_of(
    connection: sa.Connection, known: Mapping[str, Attempt], reports: Sequence[tuple[str, Report]]
) -> dict[tuple[str, int], list[tuple[str, str]]]:
    """Attempts a report is awaited of (id, host), by extend and dispatch.

    Asked only for reports that end nothing: whether another host is still at work decides what becomes of those.
    """
    judged = ((known[r.attempt_id], r) for _, r in reports if r.attempt_id in known)
    unsettled = {attempt.extend_id for attempt, report in judged if not is_final(attempt, report)}
    awaited: dict[tuple[str, int], list[tuple[str, str]]] = {}
    if unsettled:
        for attempt_id, extend_id, number, host in connection.execute(_PENDING, {"ids": sorted(unsettled)}):
            awaited.setdefault((extend_id, number), []).append((attempt_id, host))
    return awaited


def write_decisions(connection: sa.Connection, settled: Sequence[Settled], now: float) -> None:
    """Write all decisions of a batch, one statement per table and kind."""
    lines: list[dict[str, object]] = []
    ended: dict[tuple[str, str], list[dict[str, object]]] = {}
    closed: dict[tuple[str, str], list[dict[str, object]]] = {}
    again: list[dict[str, object]] = []
    for s in settled:
        attempt, extend, decision = s.attempt, s.extend, s.decision
        if attempt is None or decision is None or decision.move is Move.IGNORE:
            continue
        outcome, reason = said = decision.outcome.value, str(decision.reason)
        ended.setdefault(said, []).append(
            {"b_id": attempt.id, "b_before": s.report.before, "b_after": s.report.after}
        )
        lines.append(
            {
                "extend_id": attempt.extend_id,
                "event": _EVENTS[decision.move].value,
                "outcome": outcome,
                "reason": reason,
                "host": attempt.host,
                "request_id": extend.request_id if extend is not None else None,
                "global_request_id": extend.global_request_id if extend is not None else None,
            }
        )
        if decision.move in ENDS:
            closed.setdefault(said, []).append({"b_id": attempt.extend_id})
        elif decision.move is not Move.NOTE:
            again.append(
                {
                    "b_id": attempt.extend_id,
                    "b_outcome": outcome,
                    "b_reason": reason,
                    "b_due_at": decision.due_at,
                    "b_failures": decision.failures,
                }
            )
    for statement, groups in ((_END_ATTEMPTS, ended), (_CLOSE, closed)):
        for (outcome, reason), rows in groups.items():
            statement.run(connection, rows, {"b_outcome": outcome, "b_reason": reason, "b_now": now})
    _AGAIN.run_many(connection, again)
    _NOTE.run(connection, lines, {"at": now})
