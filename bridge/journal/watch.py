# SPDX-License-Identifier: Apache-2.0
"""The readiness of the journal: one check per process, and a probe that proves a write.

A read proves little, because a standby or a server with a full disk answers reads. So the check is bad from the
first failed transaction until a write is committed. A kind of transaction may fail for a reason of its own. Then
the check stays bad until that kind succeeds again.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from bridge.core.errors import JournalRefusedError, JournalUnavailableError
from bridge.core.extend import new_id
from bridge.journal import migrate
from bridge.journal.database import Database
from bridge.journal.tables import extends, passes
from bridge.runtime.daemon import Supervised
from bridge.runtime.health import LIMIT, Health, moving
from bridge.runtime.retry import Backoff

_EVERY: Final = 5.0
"""Seconds between two probes."""
_REMEMBERED: Final = 20.0
"""Seconds for which one kind's failure counts, if neither a repetition nor a success follows."""
_SAY_EVERY: Final = 1.0
"""Seconds between two good words about a journal that works."""
_UNTIL_USABLE: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    why: str
    general: bool
    at: float


class DatabaseCheck:
    """One check made from the results of all transactions of a Database (see its `results`)."""

    def __init__(self, health: Health, name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        health.expect(name)
        self._health = health
        self._name = name
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: dict[str, _Failure] = {}
        self._said_at = -_SAY_EVERY

    def succeeded(self, kind: str, *, wrote: bool) -> None:
        """Note a transaction that was committed; only one that wrote proves that the journal takes writes."""
        now = self._clock()
        with self._lock:
            self._failures.pop(kind, None)
            if not wrote:
                return
            self._failures = {
                name: failure
                for name, failure in self._failures.items()
                if not failure.general and now - failure.at < _REMEMBERED
            }
            if self._failures or now - self._said_at < _SAY_EVERY:
                return
            self._said_at = now
            self._health.ok(self._name, "a write was committed", good_for=LIMIT)

    def failed(self, kind: str, why: str, *, general: bool) -> None:
        """Note a failed transaction; `general` if any other would fail as well."""
        now = self._clock()
        with self._lock:
            self._failures[kind] = _Failure(why=why, general=general, at=now)
            self._said_at = -_SAY_EVERY
            self._health.bad(self._name, why)


class DueWatch:
    """The oldest due extend, and since when it has been the oldest: for Health.due.

    Due is what Claims would claim, so also a `due_at` beyond the `horizon`, written before the clock was set back.
    """

    def __init__(self, *, horizon: float = 3600.0, clock: Callable[[], float] = time.time) -> None:
        self._horizon = horizon
        self._clock = clock
        self._row: tuple[str, float] | None = None
        self._since = 0.0

    def look(self, connection: sa.Connection) -> None:
        """Read the oldest due extend, in the caller's transaction."""
        now = self._clock()
        there = sa.or_(extends.c.due_at <= now, extends.c.due_at > now + self._horizon)
        due = sa.and_(extends.c.open == 1, there)
        first = sa.select(extends.c.id, extends.c.due_at).where(due).order_by(extends.c.due_at).limit(1)
        found = connection.execute(first).first()
        row = (found[0], found[1]) if found is not None else None
        if row != self._row:
            self._row, self._since = row, time.monotonic()

    def oldest(self) -> float | None:
        """Return the seconds for which the oldest due extend has not moved, None if no extend is due."""
        return time.monotonic() - self._since if self._row is not None else None


class DatabaseProbe:
    """A probe that upgrades the tables if wanted, waits until they are usable, then writes now and then.

    `look` reads more in the same transaction.
    """

    def __init__(
        self,
        database: Database,
        check: DatabaseCheck,
        *,
        sync: bool = False,
        look: Callable[[sa.Connection], None] = lambda _: None,
        every: float = _EVERY,
    ) -> None:
        self._database = database
        self._check = check
        self._sync = sync
        self._look = look
        self._every = every
        self.usable = threading.Event()
        """Event, set once the tables have a version that this code can use."""

    def part(self, name: str, health: Health) -> Supervised:
        """Return the probe as a part of a daemon."""
        return Supervised(name, self.run, health, moves_within=2 * LIMIT)

    def run(self, stop: threading.Event) -> None:
        """Probe until `stop` is set."""
        retry, failures = Backoff(first=0.5, cap=self._every, floor=0.2), 0
        while not stop.is_set():
            failures = 0 if self.probe() else failures + 1
            stop.wait(retry.delay(failures) if failures else self._every)

    def probe(self) -> bool:
        """Probe once; return True if the journal took a write."""
        kind = "tables"
        try:
            if self._sync and not self.usable.is_set():
                migrate.upgrade(self._database)
                moving()
            if (why_not := migrate.problem(self._database)) is not None:
                self._check.failed(kind, why_not, general=False)
                return False
            self._check.succeeded(kind, wrote=False)
            self.usable.set()
            moving()
            self._database.write(self._touch)
        except JournalUnavailableError as ex:
            self._check.failed(kind, str(ex), general=True)
            return False
        except JournalRefusedError as ex:
            self._check.failed(kind, str(ex), general=False)
            return False
        return True

    def when_usable(self, body: Callable[[threading.Event], None]) -> Callable[[threading.Event], None]:
        """Return a body that waits for usable tables first."""

        def run(stop: threading.Event) -> None:
            while not self.usable.is_set():
                if stop.wait(_UNTIL_USABLE):
                    return
            body(stop)

        return run

    def _touch(self, connection: sa.Connection) -> None:
        prove_write(connection)
        self._look(connection)


def prove_write(connection: sa.Connection) -> None:
    """Write a row and delete it again: the commit reaches the disk, and no other writer waits for it."""
    name = f"probe-{new_id()}"
    connection.execute(
        sa.insert(passes), {"name": name, "held_until": 0.0, "next_at": 0.0, "counts": "{}", "last_counts": "{}"}
    )
    connection.execute(sa.delete(passes).where(passes.c.name == name))
