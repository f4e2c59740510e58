# SPDX-License-Identifier: Apache-2.0
"""The lease of the reconcile sweep: holder, position, and result of the last complete sweep.

The lease is one row. An engine holds the lease for a while and renews it with every page. An engine that dies loses
the lease, and another engine goes on from its last page. There is no leader, and no service beside the database.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from bridge.core.extend import new_id
from bridge.journal.database import Database
from bridge.journal.tables import passes

_NAME: Final = "reconcile"
_FAR: Final = 2.0  # times the interval; a later time was written before the clock was set back


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepLease:
    """A sweep held by this engine: its next page, and its counts so far."""

    marker: str | None
    started_at: float
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """The last complete sweep. `ended_at` is None if there was none yet."""

    ended_at: float | None
    counts: Mapping[str, int]


class Passes:
    """The lease's row, for one engine. Every method raises JournalUnavailableError.

    `interval`: seconds from the start of a sweep to the start of the next. `hold`: seconds until a lease that is
    not renewed is lost.
    """

    def __init__(
        self, database: Database, *, interval: float, hold: float = 180.0, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._interval = interval
        self._hold = hold
        self._clock = clock
        self._me = new_id()

    def take(self) -> SweepLease | None:
        """Take the lease, if a sweep is due and no other engine holds the lease."""
        return self._database.write(self._take)

    def keep(self, turn: SweepLease) -> bool:
        """Renew the lease and store the position; return False when the lease was lost before."""
        now = self._clock()
        return self._write(held_until=now + self._hold, marker=turn.marker, counts=_text(turn.counts))

    def end(self, turn: SweepLease) -> bool:
        """Record a complete sweep; return False when the lease was lost before."""
        now = self._clock()
        return self._write(
            holder=None,
            held_until=now,
            next_at=max(now, turn.started_at + self._interval),
            started_at=None,
            marker=None,
            counts="{}",
            last_ended_at=now,
            last_counts=_text(turn.counts),
        )

    def leave(self) -> None:
        """Give the lease back, even in mid-sweep; another engine may go on from its position."""
        self._write(holder=None, held_until=self._clock())

    def last(self) -> Survey:
        """Return the last complete sweep of any engine."""
        return last_survey(self._database)

    def _take(self, connection: sa.Connection) -> SweepLease | None:
        now = self._clock()
        row = connection.execute(sa.select(passes).where(passes.c.name == _NAME).with_for_update()).one_or_none()
        if row is None:
            connection.execute(
                sa.insert(passes).values(name=_NAME, held_until=now, next_at=now, counts="{}", last_counts="{}")
            )
            row = connection.execute(sa.select(passes).where(passes.c.name == _NAME)).one()
        ours_or_free = row.holder in {None, self._me} or not now < row.held_until <= now + self._hold * _FAR
        if not ours_or_free or now < row.next_at <= now + self._interval * _FAR:
            return None
        turn = SweepLease(
            marker=row.marker,
            started_at=min(row.started_at, now) if row.started_at is not None else now,
            counts=_counts(row.counts),
        )
        connection.execute(
            sa.update(passes)
            .where(passes.c.name == _NAME)
            .values(holder=self._me, held_until=now + self._hold, started_at=turn.started_at)
        )
        return turn

    def _write(self, **values: Any) -> bool:
        mine = sa.update(passes).where(passes.c.name == _NAME, passes.c.holder == self._me).values(**values)
        return self._database.write(lambda connection: int(connection.execute(mine).rowcount)) == 1


def last_survey(database: Database) -> Survey:
    """Return the last complete sweep. Raises JournalUnavailableError."""
    row = database.read(
        lambda c: c.execute(
            sa.select(passes.c.last_ended_at, passes.c.last_counts).where(passes.c.name == _NAME)
        ).one_or_none()
    )
    return Survey(ended_at=None, counts={}) if row is None else Survey(ended_at=row[0], counts=_counts(row[1]))


def _text(counts: Mapping[str, int]) -> str:
    return json.dumps(dict(counts), sort_keys=True)


def _counts(text: str) -> Counter[str]:
    return Counter(json.loads(text))
