# SPDX-License-Identifier: Apache-2.0
"""A batch of host messages in one transaction: liveness, inventory, reports.

The caller acknowledges the messages after the commit, not before.

Statements are few and built once, because each report of a fleet passes here.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import sqlalchemy as sa

from bridge.core import limits
from bridge.core.audit import AuditEvent
from bridge.core.extend import Bytes
from bridge.core.file_systems import FileSystemSeen
from bridge.core.messages import HostMessage, Report
from bridge.journal import hosts as host_rows
from bridge.journal.claims import EXTEND_COLUMNS, extend_of
from bridge.journal.database import Database, Prepared, PreparedForRows, names
from bridge.journal.file_systems import write_file_systems
from bridge.journal.handover import OpenedByMove, hand_over, look_again, open_again
from bridge.journal.portions import slices, weight
from bridge.journal.states import Attempt, Extend, Move, SettleDecision, State, is_final, settle
from bridge.journal.tables import attempts, extends, transitions
from bridge.runtime.retry import Backoff

_TOGETHER: Final = 4  # heartbeats from which on one statement for all is cheaper
ENDS: Final = frozenset({Move.CLOSE, Move.FAIL})
_EVENTS: Final[Mapping[Move, AuditEvent]] = {
    Move.CLOSE: AuditEvent.CLOSED,
    Move.FAIL: AuditEvent.FAILED,
    Move.AGAIN: AuditEvent.REPORTED,
    Move.NEWER: AuditEvent.REOPENED,
    Move.NOTE: AuditEvent.LATE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SettledReport:
    """One report and its effect. `extend` is None for a report that came after the end."""

    host: str
    report: Report
    attempt: Attempt | None
    extend: Extend | None
    decision: SettleDecision | None


def _read_of(size: int) -> sa.Select[Any]:
    """Read attempts with their extends, locked, because another engine may hold a copy of the same report."""
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
    """End many attempts with one statement, because round trips are the dearest part of a report."""
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
    """Return the attempts of these ids, and those of their extends that are open."""
    known: dict[str, Attempt] = {}
    rows: dict[str, Extend] = {}
    for row in _READ.run(connection, [{"b_id": i} for i in sorted(ids)], {}):
        attempt_id, host, number, gen, target, ended_at, is_open, *columns = row
        extend = extend_of(columns)
        known[attempt_id] = Attempt(
            id=attempt_id,
            extend_id=extend.id,
            key=extend.key,
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
    """Return the attempts whose report is awaited (id, host), by extend and dispatch.

    Only reports that do not end their extend need them, because another host at work decides what follows.
    """
    judged = ((known[r.attempt_id], r) for _, r in reports if r.attempt_id in known)
    unsettled = {attempt.extend_id for attempt, report in judged if not is_final(attempt, report)}
    awaited: dict[tuple[str, int], list[tuple[str, str]]] = {}
    if unsettled:
        for attempt_id, extend_id, number, host in connection.execute(_PENDING, {"ids": sorted(unsettled)}):
            awaited.setdefault((extend_id, number), []).append((attempt_id, host))
    return awaited


def write_decisions(connection: sa.Connection, settled: Sequence[SettledReport], now: float) -> None:
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
    _AGAIN.run_many(connection, again)  # first, because a later report of the batch may close the same extend
    for statement, groups in ((_END_ATTEMPTS, ended), (_CLOSE, closed)):
        for (outcome, reason), rows in groups.items():
            statement.run(connection, rows, {"b_outcome": outcome, "b_reason": reason, "b_now": now})
    _NOTE.run(connection, lines, {"at": now})


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchResult:
    """The result of a batch: each report's effect, hosts that came up, names that two agents share.

    `back`: extends made due, because their guests came to a host; `opened`: those of them that were opened anew.
    `file_systems`: those that changed, each with its host.
    """

    settled: list[SettledReport]
    came_up: list[str]
    duplicate: list[str]
    back: int = 0
    opened: list[OpenedByMove] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    lost: Mapping[str, int] = field(default_factory=dict)
    file_systems: list[tuple[str, FileSystemSeen]] = field(default_factory=list)


class Reported:
    """The writer of host messages into the journal."""

    def __init__(
        self,
        database: Database,
        *,
        backoff: Backoff,
        host_timeout: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._backoff = backoff
        self._host_timeout = host_timeout
        self._clock = clock

    def take(self, messages: Sequence[HostMessage]) -> BatchResult:
        """Commit a batch of `portions`. On JournalUnavailableError, no report has any effect."""
        moved_in = self._apply_ahead(messages[0]) if len(messages) == 1 else ()
        return self._database.write(lambda connection: self._take(connection, messages, moved_in))

    def _apply_ahead(self, message: HostMessage) -> tuple[str, ...]:
        """Write an inventory that is too large for one transaction domain by domain, in several transactions."""
        if message.inventory is None or weight(message) <= limits.ROWS.most:
            return ()
        now = self._clock()
        alive = host_rows.Alive(since=now - self._host_timeout, until=now + self._host_timeout)
        moved_in: list[str] = []
        for some in slices(message.inventory.domains):
            ahead = partial(host_rows.apply_part, message=message, some=some, now=now, alive=alive)
            moved_in += self._database.write(ahead)
        return tuple(moved_in)

    def _take(
        self, connection: sa.Connection, messages: Sequence[HostMessage], moved_in: tuple[str, ...]
    ) -> BatchResult:
        now = self._clock()
        came_up: list[str] = []
        duplicate: list[str] = []
        back = 0
        opened: list[OpenedByMove] = []
        refused: list[str] = []
        lost: dict[str, int] = {}
        believed: list[HostMessage] = []
        alive = host_rows.Alive(since=now - self._host_timeout, until=now + self._host_timeout)
        beats = [message for message in messages if host_rows.is_heartbeat(message)]
        quiet = len(beats) >= _TOGETHER and host_rows.all_still_there(connection, beats, now=now, alive=alive)
        for message in messages:
            if quiet and host_rows.is_heartbeat(message):
                continue
            heard = host_rows.hear(connection, message, now=now, alive=alive)
            if heard.refused:
                refused.append(heard.host)
                continue
            believed.append(message)
            if heard.lost:
                lost[heard.host] = heard.lost
            if heard.came_up:
                came_up.append(heard.host)
                hand_over(connection, heard, now)
            if heard.duplicate:
                duplicate.append(heard.host)
            if came := (*moved_in, *heard.moved_in):
                back += look_again(connection, came, now)
                opened += open_again(connection, heard.host, came, now)
        settled = list(self._settle(connection, believed, now))
        write_decisions(connection, settled, now)
        changed = [
            (message.host, each)
            for message in believed
            if message.file_systems
            for each in write_file_systems(connection, message.host, message.file_systems, now)
        ]
        return BatchResult(
            settled=settled, came_up=came_up, duplicate=duplicate, back=back + len(opened), opened=opened,
            refused=refused, lost=lost, file_systems=changed,
        )  # fmt: skip

    def _settle(
        self, connection: sa.Connection, messages: Sequence[HostMessage], now: float
    ) -> Iterator[SettledReport]:
        """Decide report by report, in order; each decision sees the effects of the earlier ones."""
        reports = [(m.host, r) for m in messages for r in m.reports]
        known, rows = read_attempts(connection, {report.attempt_id for _, report in reports})
        awaited = awaited_of(connection, known, reports)
        ended: set[str] = set()
        for host, report in reports:
            attempt = known.get(report.attempt_id)
            if attempt is None:
                yield SettledReport(host=host, report=report, attempt=None, extend=None, decision=None)
                continue
            if attempt.id in ended:
                attempt = dataclasses.replace(attempt, ended=True)
            extend = rows.get(attempt.extend_id)
            decision = settle(
                extend,
                attempt,
                report,
                host=host,
                siblings_pending=any(
                    other != attempt.host and attempt_id not in ended
                    for attempt_id, other in awaited.get((attempt.extend_id, attempt.number), ())
                ),
                now=now,
                backoff=self._backoff,
            )
            if decision.move is not Move.IGNORE:
                ended.add(attempt.id)
                if decision.move in ENDS:
                    rows.pop(attempt.extend_id, None)
            yield SettledReport(host=host, report=report, attempt=attempt, extend=extend, decision=decision)
