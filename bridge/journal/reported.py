# SPDX-License-Identifier: Apache-2.0
"""What a batch of host messages does to the journal, in one transaction: liveness, inventory, reports.

The caller acknowledges the messages when this has returned, not before.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from bridge.core.extend import Arrival, ExtendKey, Source
from bridge.core.messages import HostMessage
from bridge.journal import hosts as host_rows
from bridge.journal.database import Database
from bridge.journal.report_rows import ENDS, Settled, awaited_of, read_attempts, write_decisions
from bridge.journal.states import Move, State, settle
from bridge.journal.store import open_extends
from bridge.journal.tables import attempts, extends
from bridge.runtime.backoff import Backoff

_TOGETHER: Final = 4  # heartbeats from which on one statement for all is the cheaper one
_MIGRATION: Final = 3600.0  # seconds a live migration may take for a resize on its source to be looked at again


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
        beats = [message for message in messages if host_rows.is_heartbeat(message)]
        quiet = len(beats) >= _TOGETHER and host_rows.all_still_there(connection, beats, now=now, alive=alive)
        for message in messages:
            if quiet and host_rows.is_heartbeat(message):
                continue
            heard = host_rows.hear(connection, message, now=now, alive=alive)
            if heard.came_up:
                came_up.append(heard.host)
                _hand_over(connection, heard, now)
            if heard.duplicate:
                duplicate.append(heard.host)
            _look_again(connection, heard, now)
        settled = list(self._settle(connection, messages, now))
        write_decisions(connection, settled, now)
        return Taken(settled=settled, came_up=came_up, duplicate=duplicate)

    def _settle(self, connection: sa.Connection, messages: Sequence[HostMessage], now: float) -> Iterator[Settled]:
        """Decide report by report, in order; each decision sees what the ones before it did."""
        reports = [(m.host, r) for m in messages for r in m.reports]
        known, rows = read_attempts(connection, {report.attempt_id for _, report in reports})
        awaited = awaited_of(connection, known, reports)
        ended: set[str] = set()
        for host, report in reports:
            attempt = known.get(report.attempt_id)
            if attempt is None:
                yield Settled(host=host, report=report, attempt=None, extend=None, decision=None)
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
