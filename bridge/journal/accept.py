# SPDX-License-Identifier: Apache-2.0
"""The API's part of the journal: known servers, and the commit behind a 200."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite

from bridge.core.audit import AuditEvent
from bridge.core.errors import JournalUnavailableError
from bridge.core.extend import Arrival, ExtendKey, ServerState, new_id
from bridge.journal import migrate
from bridge.journal.database import Connected, Database, Prepared, PreparedForRows, Results, names
from bridge.journal.inventory import GONE
from bridge.journal.settings import JournalSettings
from bridge.journal.states import State
from bridge.journal.tables import domains, extends, transitions
from bridge.journal.watch import prove_write

_COUNT_EVERY: Final = 1.0  # seconds; the limit is still kept if the count is a second old
_FULL_RETRY: Final = 30.0

_KIND: Final = "accept"
"""The kind of transaction for readiness: a success in one way ends the failure in another."""
Choice = Callable[[Mapping[str, ServerState]], Sequence[Arrival]]
"""A function that decides which arrivals are accepted, from the states of their servers."""


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
        if not is_full and (opened := self._open_alone(server_ids, choose)):
            return opened

        def work(connection: Connected) -> Mapping[ExtendKey, str]:
            if not is_full and (opened := _open_if_on_host(connection, server_ids, choose, self._clock())):
                return opened
            arrivals = choose(_states(connection, server_ids) if server_ids else {})
            if not arrivals:
                return {}
            if is_full:
                raise self._full()
            return open_extends(connection, arrivals, self._clock())

        return self.database.write_prepared(work, kind=_KIND)

    def _open_alone(self, server_ids: Collection[str], choose: Choice) -> Mapping[ExtendKey, str]:
        """Open the only extend of a request in one round trip to PostgreSQL; {} if nothing was opened."""
        if self.database.engine.dialect.name != "postgresql":
            return {}
        arrival = _only_arrival(server_ids, choose)
        if arrival is None:
            return {}
        statement = _UPSERT_ON_HOST["postgresql"] if server_ids else _UPSERT["postgresql"]
        rows = self.database.write_alone(statement, _new_row(new_id(), arrival, self._clock()), kind=_KIND)
        return {arrival.key: rows[0][0]} if rows else {}

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


def _open_if_on_host(
    connection: Connected, server_ids: Collection[str], choose: Choice, now: float
) -> dict[ExtendKey, str]:
    """Open the only extend of a request by a statement that looks for its server itself; {} if nothing was opened.

    Nearly all requests have one event, and its server is on a host. PostgreSQL's statement is a transaction of its
    own. MariaDB has no such statement, because there a SELECT inside an INSERT locks the rows that it reads, which
    the engines write.
    """
    if connection.dialect.name != "sqlite" or not (server_ids and connection.dialect.insert_returning):
        return {}
    arrival = _only_arrival(server_ids, choose)
    return _open_one(connection, _UPSERT_ON_HOST["sqlite"], arrival, now) if arrival is not None else {}


def _only_arrival(server_ids: Collection[str], choose: Choice) -> Arrival | None:
    """Return the arrival of a request with one event, whose server is on a host or need not be known."""
    if len(server_ids) > 1:
        return None
    arrivals = choose(dict.fromkeys(server_ids, ServerState.ON_HOST))
    if len(arrivals) != 1 or (server_ids and arrivals[0].key.server_id not in server_ids):
        return None
    return arrivals[0]


def _count_open(connection: sa.Connection) -> int:
    return int(connection.scalar(sa.select(sa.func.count()).where(extends.c.open == 1)) or 0)


def _fixed(value: str | int) -> sa.ColumnClause[Any]:
    """Return a constant of ours as text of the statement, because each bound value costs the driver time."""
    return sa.literal_column(f"'{value}'" if isinstance(value, str) else str(value))


# One statement locks all rows of a request, in one order, whatever their number. So two writers wait for each other
# at most once.
_MOST: Final = 1000


def _open_ids_of(size: int) -> sa.Select[Any]:
    return (
        sa.select(extends.c.id, extends.c.server_id, extends.c.volume_id)
        .where(
            extends.c.open == 1,
            extends.c.server_id.in_(names("server", size, extends.c.server_id.type)),
            extends.c.volume_id.in_(names("volume", size, extends.c.volume_id.type)),
        )
        .order_by(extends.c.id)
        .with_for_update()
    )


def _states_of(size: int) -> sa.Select[Any]:
    return sa.select(domains.c.server_id, domains.c.state).where(
        domains.c.server_id.in_(names("server", size, domains.c.server_id.type))
    )


_OPEN_IDS: Final = PreparedForRows(_open_ids_of, most=_MOST)
_STATES: Final = PreparedForRows(_states_of, most=_MOST)
_STATE: Final = Prepared(
    sa.select(domains.c.state).where(
        domains.c.server_id == sa.bindparam("server_id", type_=domains.c.server_id.type)
    )
)
_RAISE: Final = Prepared(
    sa.update(extends)
    .where(extends.c.id == sa.bindparam("b_id"))
    .values(
        state=State.DUE.value,
        wanted_gen=extends.c.wanted_gen + 1,
        failures=0,
        due_at=sa.bindparam("b_due_at"),
        waiting_for=sa.null(),
        request_id=sa.bindparam("b_request_id"),
        global_request_id=sa.bindparam("b_global_request_id"),
        traceparent=sa.bindparam("b_traceparent"),
    )
)
_OF_A_NEW_ROW: Final[dict[str, Any]] = {
    "open": 1, "state": State.DUE.value, "wanted_gen": 1, "attempt": 0, "failures": 0,
    **{
        name: sa.bindparam(name)
        for name in ("id", "server_id", "volume_id", "source", "due_at", "opened_at", "request_id",
                     "global_request_id", "traceparent")
    },
}  # fmt: skip
_OPEN: Final = Prepared(sa.insert(extends).values(_OF_A_NEW_ROW))
_RENEWED: Final = ("due_at", "request_id", "global_request_id", "traceparent")


def _raise_by_insert() -> sa.Executable:
    insert = mysql.insert(extends).values(_OF_A_NEW_ROW)
    raised: sa.Executable = insert.on_duplicate_key_update(
        state=insert.inserted.state,
        failures=insert.inserted.failures,
        wanted_gen=extends.c.wanted_gen + _fixed(1),
        waiting_for=sa.null(),
        **{name: insert.inserted[name] for name in _RENEWED},
    )
    return raised


_RAISE_BY_INSERT: Final = Prepared(_raise_by_insert())
_ACCEPTED: Final = Prepared(
    sa.insert(transitions)
    .inline()
    .values(
        event=AuditEvent.ACCEPTED.value,  # bound, because PyMySQL makes one statement of rows of bound values alone
        **{name: sa.bindparam(name) for name in ("extend_id", "at", "request_id", "global_request_id")},
    )
)


_DUE: Final = _fixed(State.DUE.value)
_NEW: Final[dict[str, Any]] = {
    "open": _fixed(1), "state": _DUE, "wanted_gen": _fixed(1), "attempt": _fixed(0), "failures": _fixed(0),
    **{
        name: sa.bindparam(name, type_=extends.c[name].type)
        for name in ("id", "server_id", "volume_id", "source", "due_at", "opened_at", "request_id",
                     "global_request_id", "traceparent")
    },
}  # fmt: skip
_RAISED: Final[dict[str, Any]] = {
    "state": _DUE, "wanted_gen": extends.c.wanted_gen + _fixed(1), "failures": _fixed(0), "waiting_for": sa.null(),
}  # fmt: skip


def _upsert_of(dialect: str, *, on_host: bool) -> sa.Executable:
    """Return the statement that opens an extend or raises the open one's generation, and returns its id.

    With `on_host` it does so only if the inventory has the server on a host. PostgreSQL's statement also writes the
    line of `transitions`.
    """
    if dialect in {"mysql", "mariadb"}:
        insert = mysql.insert(extends).values(_NEW)
        newer = {name: insert.inserted[name] for name in _RENEWED}
        raised: sa.Executable = insert.on_duplicate_key_update(**_RAISED, **newer).returning(extends.c.id)
        return raised
    if on_host:
        server = domains.c.server_id == _NEW["server_id"]
        source = sa.select(*_NEW.values()).where(sa.exists().where(server, domains.c.state != _fixed(GONE)))
        made = (sqlite if dialect == "sqlite" else postgresql).insert(extends).from_select([*_NEW], source)
    else:
        made = (sqlite if dialect == "sqlite" else postgresql).insert(extends).values(_NEW)
    upsert = made.on_conflict_do_update(
        index_elements=["server_id", "volume_id", "open"],
        set_=_RAISED | {name: made.excluded[name] for name in _RENEWED},
    ).returning(extends.c.id)
    if dialect == "sqlite":
        by_itself: sa.Executable = upsert
        return by_itself
    opened = upsert.cte("opened")
    line = sa.select(
        opened.c.id, _NEW["due_at"], _fixed(AuditEvent.ACCEPTED.value), _NEW["request_id"],
        _NEW["global_request_id"],
    )  # fmt: skip
    columns = ["extend_id", "at", "event", "request_id", "global_request_id"]
    return sa.insert(transitions).from_select(columns, line).returning(transitions.c.extend_id)


_UPSERT: Final = {
    name: Prepared(_upsert_of(name, on_host=False)) for name in ("sqlite", "postgresql", "mysql", "mariadb")
}
_UPSERT_ON_HOST: Final = {name: Prepared(_upsert_of(name, on_host=True)) for name in ("sqlite", "postgresql")}


def open_extends(connection: Connected, arrivals: Sequence[Arrival], now: float) -> dict[ExtendKey, str]:
    """Open an extend per pair or raise the open one's generation, in the caller's transaction; return their ids."""
    if len(arrivals) == 1 and connection.dialect.insert_returning:
        return _open_one(connection, _UPSERT[connection.dialect.name], arrivals[0], now)
    ids = _open_many(connection, {arrival.key: arrival for arrival in arrivals}, now)
    lines = [_line(ids[arrival.key], arrival, now) for arrival in arrivals]
    _ACCEPTED.run_many(connection, lines)
    return ids


def _open_one(connection: Connected, statement: Prepared, arrival: Arrival, now: float) -> dict[ExtendKey, str]:
    """Open or raise one pair in one round trip, because most requests have one event and wait for each trip."""
    rows = statement.rows(connection, _new_row(new_id(), arrival, now))
    if not rows:
        return {}
    ((extend_id,),) = rows
    if connection.dialect.name != "postgresql":
        _ACCEPTED.rows(connection, _line(extend_id, arrival, now))
    return {arrival.key: extend_id}


def _line(extend_id: str, arrival: Arrival, now: float) -> dict[str, object]:
    return {
        "extend_id": extend_id,
        "at": now,
        "request_id": arrival.request_id,
        "global_request_id": arrival.global_request_id,
    }


def _open_many(connection: Connected, newest: Mapping[ExtendKey, Arrival], now: float) -> dict[ExtendKey, str]:
    ids = _open_ids(connection, newest)
    _raise_all(connection, [_new_row(row_id, newest[key], now) for key, row_id in ids.items()])
    fresh = sorted(key for key in newest if key not in ids)
    ids.update({key: new_id() for key in fresh})
    _OPEN.run_many(connection, [_new_row(ids[key], newest[key], now) for key in fresh])
    return ids


def _raise_all(connection: Connected, rows: Sequence[dict[str, object]]) -> None:
    """Raise the generation of open rows, which the caller has locked.

    PyMySQL sends an UPDATE for each row, but rows of an INSERT in one statement. Each of those rows is there.
    """
    if connection.dialect.name in {"mysql", "mariadb"}:
        _RAISE_BY_INSERT.run_many(connection, rows)
    else:
        _RAISE.run_many(connection, [{f"b_{name}": row[name] for name in ("id", *_RENEWED)} for row in rows])


def _open_ids(connection: Connected, keys: Collection[ExtendKey]) -> dict[ExtendKey, str]:
    """Return the ids of these pairs' open rows, locked until the commit. On SQLite the transaction locks."""
    rows = _OPEN_IDS.run(connection, [{"server": key.server_id, "volume": key.volume_id} for key in keys], {})
    found = {ExtendKey(server_id, volume_id): row_id for row_id, server_id, volume_id in rows}
    return {key: found[key] for key in keys if key in found}


def _new_row(row_id: str, arrival: Arrival, now: float) -> dict[str, object]:
    return {
        "id": row_id,
        "server_id": arrival.key.server_id,
        "volume_id": arrival.key.volume_id,
        "source": arrival.source.value,
        "due_at": now,
        "opened_at": now,
        "request_id": arrival.request_id,
        "global_request_id": arrival.global_request_id,
        "traceparent": arrival.traceparent,
    }
