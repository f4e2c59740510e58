# SPDX-License-Identifier: Apache-2.0
"""The API's part of the journal: known servers, and the commit behind a 200."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from bridge.core.errors import JournalUnavailableError
from bridge.core.extend import Arrival, ExtendKey, ServerState
from bridge.journal import migrate
from bridge.journal.database import Database, Results
from bridge.journal.inventory import GONE
from bridge.journal.one_event import Choice, only_arrival, open_alone
from bridge.journal.opening import open_extends
from bridge.journal.settings import JournalSettings
from bridge.journal.statements import Connected, Prepared, PreparedForRows, names
from bridge.journal.tables import domains, extends
from bridge.journal.watch import prove_write

_COUNT_EVERY: Final = 1.0  # seconds; the limit is still kept if the count is a second old
_FULL_RETRY: Final = 30.0

_KIND: Final = "accept"
"""The kind of transaction for readiness: a success in one way ends the failure in another."""


def open_journal(settings: JournalSettings, *, results: Results | None = None) -> "Journal":
    """Return the journal of these settings. Connects later; raises ConfigError for a URL that cannot be used."""
    return Journal(Database(settings, results=results), max_open=settings.max_open)


class Journal:
    """The journal that accepts extends. Safe for many threads and many processes on one database."""

    def __init__(
        self, database: Database, *, max_open: int = 100_000, clock: Callable[[], float] = time.time
    ) -> None:
        self.database = database
        self._clock = clock
        self._max_open = max_open
        self._counted_at = -_COUNT_EVERY
        self._open = 0

    def ping(self) -> str | None:
        """Prove a write; return None on success, else the reason. Raises JournalUnavailableError."""
        if (why_not := migrate.problem(self.database)) is None:
            self.database.write(prove_write)
        return why_not

    def standing(self, server_ids: Collection[str]) -> Mapping[str, ServerState]:
        """Return the state of each server; a server absent from the answer is unknown.

        The states mirror Nova's instance mapping. A server that hosts no longer report is known, but on no host
        (422).
        """
        return self.database.read(lambda connection: _states(connection, server_ids)) if server_ids else {}

    def accept(self, arrivals: Sequence[Arrival]) -> Mapping[ExtendKey, str]:
        """Open an extend for each (server, volume), or raise the generation of the open one; return their ids.

        Committed on return. Several arrivals of one pair become one generation; each leaves its own line in
        `transitions`.
        """
        return self.admit((), lambda _: arrivals) if arrivals else {}

    def admit(self, server_ids: Collection[str], choose: Choice) -> Mapping[ExtendKey, str]:
        """Read the states of servers and accept what `choose` returns for them, in one transaction.

        `choose` may be called more than once, and must not call the journal.
        """
        is_full = self._is_full()
        if not is_full and (arrival := only_arrival(server_ids, choose)) is not None:
            opened = open_alone(self.database, arrival, on_host=bool(server_ids), now=self._clock(), kind=_KIND)
            if opened:
                return opened

        def work(connection: Connected) -> Mapping[ExtendKey, str]:
            arrivals = choose(_states(connection, server_ids) if server_ids else {})
            if not arrivals:
                return {}
            if is_full:
                raise self._full()
            return open_extends(connection, arrivals, self._clock())

        return self.database.write_prepared(work, kind=_KIND)

    def _is_full(self) -> bool:
        """Return True if the backlog is full; the backlog is counted at most once a second.

        A caller of a full journal keeps its events and comes back.
        """
        now = time.monotonic()
        if now - self._counted_at >= _COUNT_EVERY:
            self._counted_at = now
            self._open = self.database.read(_count_open)
        return self._open >= self._max_open

    def _full(self) -> JournalUnavailableError:
        return JournalUnavailableError(
            f"{self._open} extends are open, and [journal] max_open is {self._max_open}: check that engines and "
            "host agents run",
            retry_after=_FULL_RETRY,
        )


def _states(connection: Connected, server_ids: Collection[str]) -> dict[str, ServerState]:
    found: dict[str, ServerState] = {}
    ids = set(server_ids)
    if len(ids) == 1:
        (server_id,) = ids
        rows = [(server_id, state) for (state,) in _STATE.rows(connection, {"server_id": server_id})]
    else:
        rows = _STATES.run(connection, [{"server": s} for s in ids], {})
    for server_id, state in rows:
        if state != GONE:
            found[server_id] = ServerState.ON_HOST
        else:
            found.setdefault(server_id, ServerState.NO_HOST)
    return found


def _count_open(connection: sa.Connection) -> int:
    return int(connection.scalar(sa.select(sa.func.count()).where(extends.c.open == 1)) or 0)


_MOST: Final = 1000


def _states_of(size: int) -> sa.Select[Any]:
    return sa.select(domains.c.server_id, domains.c.state).where(
        domains.c.server_id.in_(names("server", size, domains.c.server_id.type))
    )


_STATES: Final = PreparedForRows(_states_of, most=_MOST)
_STATE: Final = Prepared(
    sa.select(domains.c.state).where(
        domains.c.server_id == sa.bindparam("server_id", type_=domains.c.server_id.type)
    )
)
