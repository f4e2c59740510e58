# SPDX-License-Identifier: Apache-2.0
"""What a batch of host messages does to the journal, in one transaction: liveness, inventory, reports.

The caller acknowledges the messages when this has returned, not before.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from bridge.core.extend import Arrival, Bytes, ExtendKey, Source
from bridge.core.messages import HostMessage, Report
from bridge.core.trail import Event
from bridge.journal import hosts as host_rows
from bridge.journal.database import Database
from bridge.journal.states import Attempt, Decision, Extend, Move, State, settle
from bridge.journal.store import open_extends
from bridge.journal.tables import attempts, extends, transitions
from bridge.journal.work import EXTEND_COLUMNS, extend_of
from bridge.runtime.backoff import Backoff

_MIGRATION: Final = 3600.0  # seconds a live migration may take for a resize on its source to be looked at again


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """One report and what it did. `extend` is None for a report that came after the end."""

    host: str
    report: Report
    attempt: Attempt | None
    extend: Extend | None
    decision: Decision | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What a batch did: each report's fate, the hosts that came up, the names two agents share."""

    settled: list[Settled]
    came_up: list[str]
    duplicate: list[str]


class Reported:
    """Takes host messages into the journal."""

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

    def take(self, messages: Sequence[HostMessage]) -> Taken:
        """Commit a batch; raises JournalUnavailableError with nothing done."""
        return self._database.write(lambda connection: self._take(connection, messages))

    def _take(self, connection: sa.Connection, messages: Sequence[HostMessage]) -> Taken:
        now = self._clock()
        came_up: list[str] = []
        duplicate: list[str] = []
        alive = host_rows.Alive(since=now - self._host_timeout, until=now + self._host_timeout)
        for message in messages:
            heard = host_rows.hear(connection, message, now=now, alive=alive)
            if heard.came_up:
                came_up.append(heard.host)
                _hand_over(connection, heard, now)
            if heard.duplicate:
                duplicate.append(heard.host)
            _look_again(connection, heard, now)
        settled = list(self._settle(connection, messages, now))
        _write(
            connection, [s for s in settled if s.decision is not None and s.decision.move is not Move.IGNORE], now
        )
        return Taken(settled=settled, came_up=came_up, duplicate=duplicate)

    def _settle(self, connection: sa.Connection, messages: Sequence[HostMessage], now: float) -> Iterator[Settled]:
        """Decide report by report, in order; each decision sees what the ones before it did."""
        known = _attempts(connection, [r.attempt_id for m in messages for r in m.reports])
        rows = _open_extends(connection, {a.extend_id for a in known.values()})
        pending = _pending_hosts(connection, rows)
        for host, report in ((m.host, r) for m in messages for r in m.reports):
            attempt = known.get(report.attempt_id)
            if attempt is None:
                yield Settled(host=host, report=report, attempt=None, extend=None, decision=None)
                continue
            extend = rows.get(attempt.extend_id)
            awaited = pending.get((attempt.extend_id, attempt.number), set())
            decision = settle(
                extend,
                attempt,
                report,
                host=host,
                siblings_pending=bool(awaited - {attempt.host}),
                now=now,
                backoff=self._backoff,
            )
            if decision.move is not Move.IGNORE:
                awaited.discard(attempt.host)
                known[attempt.id] = dataclasses.replace(attempt, ended=True)
                if decision.move in _ENDS:
                    rows.pop(attempt.extend_id, None)
            yield Settled(host=host, report=report, attempt=attempt, extend=extend, decision=decision)


def _hand_over(connection: sa.Connection, heard: host_rows.Heard, now: float) -> None:
    """What waits for the host is due now; and what its last run had in hand, since that run is gone."""
    due_now = {"due_at": now, "waiting_for": None}
    connection.execute(
        sa.update(extends).where(extends.c.open == 1, extends.c.waiting_for == heard.host).values(**due_now)
    )
    if heard.restarted:
        in_hand = sa.select(attempts.c.extend_id).where(
            attempts.c.host == heard.host, attempts.c.ended_at.is_(None)
        )
        connection.execute(
            sa.update(extends)
            .where(extends.c.open == 1, extends.c.state == State.DISPATCHED, extends.c.id.in_(in_hand))
            .values(**due_now)
        )


def _look_again(connection: sa.Connection, heard: host_rows.Heard, now: float) -> None:
    """A guest that has just arrived on a host may have left a resize behind: what another host closed of it a short
    while ago is opened again, and ends as `already` where all is well."""
    if not heard.moved_in:
        return
    elsewhere = connection.execute(
        sa.select(extends.c.server_id, extends.c.volume_id, extends.c.global_request_id)
        .join(attempts, sa.and_(attempts.c.extend_id == extends.c.id, attempts.c.gen == extends.c.wanted_gen))
        .where(
            extends.c.server_id.in_(heard.moved_in),
            extends.c.open.is_(None),
            extends.c.closed_at > now - _MIGRATION,
            attempts.c.outcome == extends.c.outcome,
            attempts.c.host != heard.host,
        )
    )
    arrivals = [
        Arrival(key=ExtendKey(server_id, volume_id), global_request_id=request_id, source=Source.RECONCILE)
        for server_id, volume_id, request_id in elsewhere
    ]
    if arrivals:
        open_extends(connection, arrivals, now)


# Statements are built once: building them costs more than running them.
_IDS: Final[sa.BindParameter[Any]] = sa.bindparam("ids", expanding=True)
_ATTEMPTS: Final = sa.select(
    attempts.c.id, attempts.c.extend_id, attempts.c.host, attempts.c.number, attempts.c.gen, attempts.c.target,
    attempts.c.ended_at,
).where(attempts.c.id.in_(_IDS))  # fmt: skip
_OPEN_EXTENDS: Final = (
    sa.select(*EXTEND_COLUMNS)
    .where(extends.c.id.in_(_IDS), extends.c.open == 1)
    .order_by(extends.c.id)
    .with_for_update()
)
_PENDING: Final = sa.select(attempts.c.extend_id, attempts.c.number, attempts.c.host).where(
    attempts.c.extend_id.in_(_IDS), attempts.c.ended_at.is_(None)
)
_END_ATTEMPT: Final = (
    sa.update(attempts)
    .where(attempts.c.id == sa.bindparam("b_id"))
    .values(
        ended_at=sa.bindparam("b_now"),
        outcome=sa.bindparam("b_outcome"),
        reason=sa.bindparam("b_reason"),
        size_before=sa.bindparam("b_before"),
        size_after=sa.bindparam("b_after"),
    )
)
_THIS_EXTEND: Final = (
    sa.update(extends)
    .where(extends.c.id == sa.bindparam("b_id"))
    .values(outcome=sa.bindparam("b_outcome"), reason=sa.bindparam("b_reason"))
)
_CLOSE: Final = _THIS_EXTEND.values(
    state=State.CLOSED, open=None, closed_at=sa.bindparam("b_now"), waiting_for=None
)
_AGAIN: Final = _THIS_EXTEND.values(
    state=State.DUE, due_at=sa.bindparam("b_due_at"), failures=sa.bindparam("b_failures")
)
_NOTE: Final = sa.insert(transitions)


def _attempts(connection: sa.Connection, ids: Sequence[str]) -> dict[str, Attempt]:
    if not ids:
        return {}
    return {
        row_id: Attempt(
            id=row_id,
            extend_id=extend_id,
            host=host,
            number=number,
            gen=gen,
            target=Bytes(target),
            ended=ended_at is not None,
        )
        for row_id, extend_id, host, number, gen, target, ended_at in connection.execute(
            _ATTEMPTS, {"ids": sorted(set(ids))}
        )
    }


def _open_extends(connection: sa.Connection, ids: set[str]) -> dict[str, Extend]:
    if not ids:
        return {}
    rows = connection.execute(_OPEN_EXTENDS, {"ids": sorted(ids)})
    return {extend.id: extend for extend in map(extend_of, rows.mappings())}


def _pending_hosts(connection: sa.Connection, rows: Mapping[str, Extend]) -> dict[tuple[str, int], set[str]]:
    """Hosts whose report is awaited, by extend and dispatch."""
    pending: dict[tuple[str, int], set[str]] = {}
    if rows:
        for extend_id, number, host in connection.execute(_PENDING, {"ids": sorted(rows)}):
            pending.setdefault((extend_id, number), set()).add(host)
    return pending


_ENDS: Final = frozenset({Move.CLOSE, Move.FAIL})
_EVENTS: Final[Mapping[Move, Event]] = {
    Move.CLOSE: Event.CLOSED,
    Move.FAIL: Event.FAILED,
    Move.AGAIN: Event.REPORTED,
    Move.NEWER: Event.REOPENED,
    Move.NOTE: Event.LATE,
}


def _write(connection: sa.Connection, settled: Sequence[Settled], now: float) -> None:
    """Write all decisions of a batch, one statement per table and kind."""
    if not settled:
        return
    connection.execute(
        _END_ATTEMPT,
        [
            {
                **_said(s),
                "b_id": s.report.attempt_id,
                "b_now": now,
                "b_before": s.report.before,
                "b_after": s.report.after,
            }
            for s in settled
        ],
    )
    moved = [
        s for s in settled if s.extend is not None and s.decision is not None and s.decision.move is not Move.NOTE
    ]
    ended = [s for s in moved if s.decision is not None and s.decision.move in _ENDS]
    again = [s for s in moved if s.decision is not None and s.decision.move not in _ENDS]
    if ended:
        connection.execute(
            _CLOSE, [{**_said(s), "b_id": s.extend.id, "b_now": now} for s in ended if s.extend is not None]
        )
    if again:
        connection.execute(
            _AGAIN,
            [
                {**_said(s), "b_id": s.extend.id, "b_due_at": s.decision.due_at, "b_failures": s.decision.failures}
                for s in again
                if s.extend is not None and s.decision is not None
            ],
        )
    connection.execute(_NOTE, [_line(s, now) for s in settled])


def _said(settled: Settled) -> dict[str, object]:
    decision = settled.decision
    return {"b_outcome": decision.outcome, "b_reason": decision.reason} if decision is not None else {}


def _line(settled: Settled, now: float) -> dict[str, object]:
    attempt, extend, decision = settled.attempt, settled.extend, settled.decision
    assert attempt is not None  # noqa: S101 - only reports of known attempts get here
    assert decision is not None  # noqa: S101
    return {
        "extend_id": attempt.extend_id,
        "at": now,
        "event": _EVENTS[decision.move],
        "outcome": decision.outcome,
        "reason": decision.reason,
        "host": attempt.host,
        "request_id": extend.request_id if extend is not None else None,
        "global_request_id": extend.global_request_id if extend is not None else None,
    }
