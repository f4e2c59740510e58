# SPDX-License-Identifier: Apache-2.0
"""The engine's part of the journal: claim due rows, record attempts before they are cast, wait, close.

Any number of engines may share one database. There are no leases: a claim only moves `due_at` and counts `attempt`.
An order that is sent twice is harmless, because sizes are compared before any change.

The three statements of a claim are built once, because a single extend waits for each of them.
"""

import dataclasses
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from bridge.core.audit import AuditEvent
from bridge.core.extend import Bytes, ExtendKey, new_id
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from bridge.journal import hosts as host_rows
from bridge.journal.database import Database, Prepared
from bridge.journal.states import Extend, State
from bridge.journal.tables import attempts, extends, hosts, transitions

EXTEND_COLUMNS: Final = (
    extends.c.id, extends.c.server_id, extends.c.volume_id, extends.c.wanted_gen, extends.c.attempt,
    extends.c.failures, extends.c.opened_at, extends.c.request_id, extends.c.global_request_id,
    extends.c.traceparent,
)  # fmt: skip


def _bind(name: str, like: sa.ColumnElement[Any]) -> sa.BindParameter[Any]:
    return sa.bindparam(name, type_=like.type)


_DUE: Final = Prepared(
    sa.select(extends.c.id, extends.c.attempt, extends.c.state)
    .where(
        extends.c.open == 1,
        sa.or_(
            extends.c.due_at <= _bind("b_now", extends.c.due_at),
            extends.c.due_at > _bind("b_horizon", extends.c.due_at),
        ),
    )
    .order_by(extends.c.due_at)
    .limit(sa.bindparam("b_limit", type_=sa.Integer()))
)
_TAKE: Final = Prepared(
    sa.update(extends)
    .where(
        extends.c.id == _bind("b_id", extends.c.id),
        extends.c.attempt == _bind("b_attempt", extends.c.attempt),
        extends.c.open == 1,
    )
    .values(
        state=_bind("b_state", extends.c.state),
        due_at=_bind("b_due_at", extends.c.due_at),
        attempt=extends.c.attempt + 1,
        claim=_bind("b_claim", extends.c.claim),
        waiting_for=sa.null(),
    )
)
_MINE: Final = Prepared(sa.select(*EXTEND_COLUMNS).where(extends.c.claim == _bind("b_claim", extends.c.claim)))

Due = tuple[str, int, str]
"""Id, attempt and state of a row that is due."""


def read_due(connection: sa.Connection, now: float, horizon: float, limit: int) -> list[Due]:
    """Return up to `limit` rows due at `now`, or later than `horizon`: the oldest, in the order of their ids."""
    rows: list[Any] = list(_DUE.run(connection, {"b_now": now, "b_horizon": horizon, "b_limit": limit}))
    return sorted((row_id, attempt, state) for row_id, attempt, state in rows)


def take(connection: sa.Connection, rows: Sequence[Due], due_at: float) -> list[Extend]:
    """Claim the rows that no other engine has claimed meanwhile; `unreported` if an earlier claim had lapsed."""
    claim = {"b_state": State.DISPATCHED.value, "b_due_at": due_at, "b_claim": new_id()}
    _TAKE.run_many(connection, [{**claim, "b_id": row_id, "b_attempt": attempt} for row_id, attempt, _ in rows])
    lapsed = {row_id for row_id, _, state in rows if state == State.DISPATCHED}
    mine = _MINE.run(connection, {"b_claim": claim["b_claim"]})
    return [dataclasses.replace(extend_of(row), unreported=row[0] in lapsed) for row in mine]


def extend_of(row: Sequence[Any]) -> Extend:
    """Build an open extend from the values of EXTEND_COLUMNS, in their order."""
    (
        row_id, server_id, volume_id, wanted_gen, attempt, failures, opened_at, request_id, global_request_id,
        traceparent,
    ) = row  # fmt: skip
    return Extend(
        id=row_id,
        key=ExtendKey(server_id, volume_id),
        wanted_gen=wanted_gen,
        attempt=attempt,
        failures=failures,
        opened_at=opened_at,
        request_id=request_id,
        global_request_id=global_request_id,
        traceparent=traceparent,
    )


CAST_WITHIN: Final = 45.0
"""Seconds an engine has from a claim to its attempts: more than a round takes, unless Cinder or Nova is slow."""
_BITE: Final = 500  # rows per transaction: a long one would hold up the API


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAttempt:
    """An order about to be cast to a host."""

    id: str
    extend: Extend
    host: str
    target: Bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """An extend that cannot go on now. `waiting_for`: the host whose return makes the extend due at once."""

    extend: Extend
    reason: Reason
    due_at: float
    failures: int
    waiting_for: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """An extend that ends without a host, because the volume is gone or detached."""

    extend: Extend
    outcome: Outcome
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """Counts for status and metrics. `oldest` in epoch seconds, None if no extend is open."""

    open: int
    oldest: float | None


class Claims:
    """The engine's reads and writes of the journal. Safe for several threads."""

    def __init__(
        self, database: Database, *, horizon: float = 3600.0, clock: Callable[[], float] = time.time
    ) -> None:
        """Keep the database. No extend is put off for more than `horizon` seconds.

        A later `due_at` was written before the clock was set back, so the extend is due now.
        """
        self._database = database
        self._horizon = horizon
        self._clock = clock

    def claim(self, limit: int, *, report_within: float) -> list[Extend]:
        """Claim up to `limit` due extends, oldest first; each is due again in `report_within` seconds.

        So no extend is lost if an engine or an agent dies at work.
        """
        now = self._clock()
        due = self._database.read(lambda c: read_due(c, now, now + self._horizon, limit))
        return self._database.write(lambda c: _claim(c, due, now, now + report_within)) if due else []

    def locate(self, claimed: Sequence[Extend], *, host_timeout: float) -> Mapping[str, list[host_rows.Location]]:
        """Return the hosts that report each extend's server; a host silent for `host_timeout` is not fresh."""
        now = self._clock()
        alive = host_rows.Alive(since=now - host_timeout, until=now + host_timeout)
        servers = {extend.key.server_id for extend in claimed}
        return self._database.read(lambda c: host_rows.locate(c, servers, alive))

    def disputed(self, *, host_timeout: float) -> Mapping[str, list[str]]:
        """Return a limited number of servers that several living hosts claim to run, with these hosts."""
        now = self._clock()
        alive = host_rows.Alive(since=now - host_timeout, until=now + host_timeout)
        return self._database.read(lambda c: host_rows.disputed(c, alive, limit=_BITE))

    def living(self, names: Collection[str], *, host_timeout: float) -> set[str]:
        """Return those of the hosts that were heard within the last `host_timeout` seconds."""
        now = self._clock()
        heard = hosts.c.heartbeat_at.between(now - host_timeout, now + host_timeout)
        query = sa.select(hosts.c.name).where(hosts.c.name.in_(sorted(names)), heard)
        return self._database.read(lambda c: set(c.scalars(query)))

    def write_attempts(self, new: Sequence[NewAttempt]) -> None:
        """Write attempts down, before the cast, because a report must find its attempt."""
        now = self._clock()

        def work(connection: sa.Connection) -> None:
            connection.execute(
                sa.insert(attempts),
                [
                    {
                        "id": a.id,
                        "extend_id": a.extend.id,
                        "host": a.host,
                        "number": a.extend.attempt,
                        "gen": a.extend.wanted_gen,
                        "target": a.target,
                        "sent_at": now,
                    }
                    for a in new
                ],
            )
            _note(connection, [_line(a.extend, now, AuditEvent.DISPATCHED, host=a.host) for a in new])

        if new:
            self._database.write(work)

    def end_attempts(self, ids: Sequence[str], reason: Reason) -> None:
        """End attempts whose cast the broker refused, because no report will come."""
        now = self._clock()
        if ids:
            self._database.write(
                lambda c: c.execute(
                    sa.update(attempts)
                    .where(attempts.c.id.in_(ids))
                    .values(ended_at=now, outcome=Outcome.ERROR, reason=reason)
                )
            )

    def wait(self, later: Sequence[Later]) -> None:
        """Put claimed extends off. An extend with a newer generation stays due as it is."""
        now = self._clock()

        def work(connection: sa.Connection) -> None:
            connection.execute(
                _still_claimed().values(
                    state=State.DUE,
                    due_at=sa.bindparam("b_due_at"),
                    failures=sa.bindparam("b_failures"),
                    reason=sa.bindparam("b_reason"),
                    waiting_for=sa.bindparam("b_waiting_for"),
                ),
                [
                    {
                        **_claim_of(x.extend),
                        "b_due_at": x.due_at,
                        "b_failures": x.failures,
                        "b_reason": x.reason,
                        "b_waiting_for": x.waiting_for,
                    }
                    for x in later
                ],
            )
            _note(
                connection,
                [_line(x.extend, now, AuditEvent.WAITING, reason=x.reason, host=x.waiting_for) for x in later],
            )

        if later:
            self._database.write(work)

    def end(self, ended: Sequence[Ended]) -> None:
        """Close claimed extends that have nothing left to extend. An extend with a newer generation stays open."""
        now = self._clock()

        def work(connection: sa.Connection) -> None:
            connection.execute(
                _still_claimed().values(
                    state=State.CLOSED,
                    open=None,
                    closed_at=now,
                    outcome=sa.bindparam("b_outcome"),
                    reason=sa.bindparam("b_reason"),
                    waiting_for=None,
                ),
                [{**_claim_of(x.extend), "b_outcome": x.outcome, "b_reason": x.reason} for x in ended],
            )
            _note(
                connection,
                [_line(x.extend, now, AuditEvent.CLOSED, outcome=x.outcome, reason=x.reason) for x in ended],
            )

        if ended:
            self._database.write(work)

    def return_unordered(self, *, report_within: float) -> int:
        """Make claimed extends due that have no attempt after CAST_WITHIN seconds; return how many.

        Their engine died before the order, or the answer to its commit was lost. No host could report. An engine
        that is only slow sends the order a second time, which is harmless.
        """
        now = self._clock()
        ordered = sa.exists().where(attempts.c.extend_id == extends.c.id, attempts.c.number == extends.c.attempt)
        waits = sa.and_(
            extends.c.open == 1,
            extends.c.state == State.DISPATCHED.value,
            extends.c.due_at > now,
            extends.c.due_at < now + report_within - CAST_WITHIN,
        )
        found = self._database.read(
            lambda c: list(c.scalars(sa.select(extends.c.id).where(waits, ~ordered).limit(_BITE)))
        )
        if found:
            again = sa.update(extends).where(extends.c.id.in_(found), waits).values(due_at=now)
            self._database.write(lambda c: c.execute(again))
        return len(found)

    def mark_overdue(self, *, older_than: float) -> list[Extend]:
        """Mark open extends older than `older_than` seconds, once each; return the newly marked, none when all are.

        Each call marks one small batch, because a weekend without hosts makes more rows than a statement takes
        parameters. A saved guest is never late, because the guest may stay saved for weeks.
        """
        now = self._clock()

        def work(connection: sa.Connection) -> list[Extend]:
            late = sa.and_(
                extends.c.open == 1, extends.c.overdue_at.is_(None), extends.c.opened_at < now - older_than,
                ~_waits_for_guest(),
            )  # fmt: skip
            found = [
                extend_of(row) for row in connection.execute(sa.select(*EXTEND_COLUMNS).where(late).limit(_BITE))
            ]
            if found:
                connection.execute(
                    sa.update(extends).where(extends.c.id.in_([x.id for x in found])).values(overdue_at=now)
                )
                _note(connection, [_line(x, now, AuditEvent.OVERDUE) for x in found])
            return found

        return self._database.write(work)

    def standing(self) -> Backlog:
        """Return the number of open extends and the age of the oldest; saved guests do not count for the age."""
        opened = sa.case((~_waits_for_guest(), extends.c.opened_at))

        def ask(connection: sa.Connection) -> Backlog:
            count, oldest = connection.execute(
                sa.select(sa.func.count(), sa.func.min(opened)).where(extends.c.open == 1)
            ).one()
            return Backlog(open=count, oldest=oldest)

        return self._database.read(ask)


def _waits_for_guest() -> sa.ColumnElement[bool]:
    """Match extends whose guest is saved: they go on when the guest is back."""
    return sa.func.coalesce(extends.c.outcome, "") == Outcome.GUEST_SAVED.value


def _claim(connection: sa.Connection, due: Sequence[Due], now: float, due_at: float) -> list[Extend]:
    claimed = take(connection, due, due_at)
    unreported = [x for x in claimed if x.unreported]
    if unreported:
        _note(connection, [_line(x, now, AuditEvent.WAITING, reason=Reason.NOT_REPORTED) for x in unreported])
    return claimed


def _still_claimed() -> sa.Update:
    return sa.update(extends).where(
        extends.c.id == sa.bindparam("b_id"),
        extends.c.attempt == sa.bindparam("b_attempt"),
        extends.c.wanted_gen == sa.bindparam("b_gen"),
        extends.c.open == 1,
    )


def _claim_of(extend: Extend) -> dict[str, object]:
    return {"b_id": extend.id, "b_attempt": extend.attempt, "b_gen": extend.wanted_gen}


def _line(extend: Extend, at: float, event: AuditEvent, **more: object) -> dict[str, object]:
    return {
        "extend_id": extend.id,
        "at": at,
        "event": event,
        "outcome": more.get("outcome"),
        "reason": more.get("reason"),
        "host": more.get("host"),
        "request_id": extend.request_id,
        "global_request_id": extend.global_request_id,
    }


def _note(connection: sa.Connection, lines: Sequence[dict[str, object]]) -> None:
    connection.execute(sa.insert(transitions), list(lines))
