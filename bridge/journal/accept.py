# SPDX-License-Identifier: Apache-2.0
"""The API's part of the journal: known servers, and the commit behind a 200. The rows that open an extend.

`open_extends` opens several in a transaction of the caller. `open_alone` commits a request with one event, in the
fewest messages to each database that are safe. Nearly all requests have one event, and each waits for every round
trip. PyMySQL also reads each answer in Python. So the condition (the inventory has the server on a host), the row
of `extends` and its line in `transitions` travel together.

PostgreSQL
    One statement, in one message with its BEGIN and COMMIT.
MariaDB
    One block, which the server runs by itself. A SELECT inside an INSERT would lock the rows that it reads, which
    the engines write. The block reads them without a lock before its INSERT.
SQLite
    An INSERT alone where the extend is new, because RETURNING costs as much as the INSERT.
MySQL and other drivers
    The statements of several events.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite

from bridge.core.audit import AuditEvent
from bridge.core.errors import JournalUnavailableError
from bridge.core.extend import Arrival, ExtendKey, ServerState, new_id
from bridge.journal import migrate
from bridge.journal.database import (
    Connected,
    Database,
    DriverConnection,
    Prepared,
    PreparedBlock,
    PreparedForRows,
    Results,
    names,
)
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


# One statement locks all rows of a request, in one order, whatever their number. So two writers wait for each other
# at most once.
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


def fixed(value: str | int) -> sa.ColumnClause[Any]:
    """Return a constant of ours as text of the statement, because each bound value costs the driver time."""
    return sa.literal_column(f"'{value}'" if isinstance(value, str) else str(value))


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


_OPEN_IDS: Final = PreparedForRows(_open_ids_of, most=_MOST)
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
RENEWED: Final = ("due_at", "request_id", "global_request_id", "traceparent")
"""Columns of an open row that the newest arrival replaces."""


def _raise_by_insert() -> sa.Executable:
    insert = mysql.insert(extends).values(_OF_A_NEW_ROW)
    raised: sa.Executable = insert.on_duplicate_key_update(
        state=insert.inserted.state,
        failures=insert.inserted.failures,
        wanted_gen=extends.c.wanted_gen + fixed(1),
        waiting_for=sa.null(),
        **{name: insert.inserted[name] for name in RENEWED},
    )
    return raised


_RAISE_BY_INSERT: Final = Prepared(_raise_by_insert())
ACCEPTED: Final = Prepared(
    sa.insert(transitions)
    .inline()
    .values(
        event=AuditEvent.ACCEPTED.value,  # bound, because PyMySQL makes one statement of rows of bound values alone
        **{name: sa.bindparam(name) for name in ("extend_id", "at", "request_id", "global_request_id")},
    )
)


_DUE: Final = fixed(State.DUE.value)
UNIQUE: Final = ("server_id", "volume_id", "open")
NEW: Final[dict[str, Any]] = {
    "open": fixed(1), "state": _DUE, "wanted_gen": fixed(1), "attempt": fixed(0), "failures": fixed(0),
    **{
        name: sa.bindparam(name, type_=extends.c[name].type)
        for name in ("id", "server_id", "volume_id", "source", "due_at", "opened_at", "request_id",
                     "global_request_id", "traceparent")
    },
}  # fmt: skip
RAISED: Final[dict[str, Any]] = {
    "state": _DUE, "wanted_gen": extends.c.wanted_gen + fixed(1), "failures": fixed(0), "waiting_for": sa.null(),
}  # fmt: skip


def upsert_of(dialect: str, *, on_host: bool = False) -> sa.Executable:
    """Return the statement that opens an extend or raises the open one's generation, and returns its id.

    With `on_host` it does so only if the inventory has the server on a host. PostgreSQL's statement also writes the
    line of `transitions`.
    """
    if dialect in {"mysql", "mariadb"}:
        raised: sa.Executable = upsert_of_mysql().returning(extends.c.id)
        return raised
    made = (sqlite if dialect == "sqlite" else postgresql).insert(extends)
    made = made.from_select([*NEW], new_row_on_host()) if on_host else made.values(NEW)
    upsert = made.on_conflict_do_update(
        index_elements=UNIQUE, set_=RAISED | {name: made.excluded[name] for name in RENEWED}
    ).returning(extends.c.id)
    if dialect == "sqlite":
        by_itself: sa.Executable = upsert
        return by_itself
    opened = upsert.cte("opened")
    line = sa.select(
        opened.c.id, NEW["due_at"], fixed(AuditEvent.ACCEPTED.value), NEW["request_id"], NEW["global_request_id"]
    )
    columns = ["extend_id", "at", "event", "request_id", "global_request_id"]
    return sa.insert(transitions).from_select(columns, line).returning(transitions.c.extend_id)


def upsert_of_mysql() -> Any:
    """Return the same of MySQL and MariaDB, which returns nothing yet."""
    insert = mysql.insert(extends).values(NEW)
    return insert.on_duplicate_key_update(**RAISED, **{name: insert.inserted[name] for name in RENEWED})


def new_row_on_host() -> sa.Select[Any]:
    """Return the query of a new row's values; it is empty unless the inventory has the server on a host."""
    server = domains.c.server_id == NEW["server_id"]
    return sa.select(*NEW.values()).where(sa.exists().where(server, domains.c.state != fixed(GONE)))


_UPSERT: Final = {name: Prepared(upsert_of(name)) for name in ("sqlite", "postgresql", "mysql", "mariadb")}


def open_extends(connection: Connected, arrivals: Sequence[Arrival], now: float) -> dict[ExtendKey, str]:
    """Open an extend per pair or raise the open one's generation, in the caller's transaction; return their ids."""
    if len(arrivals) == 1 and connection.dialect.insert_returning:
        return _open_one(connection, arrivals[0], now)
    ids = _open_many(connection, {arrival.key: arrival for arrival in arrivals}, now)
    ACCEPTED.run_many(connection, [line_of(ids[arrival.key], arrival, now) for arrival in arrivals])
    return ids


def _open_one(connection: Connected, arrival: Arrival, now: float) -> dict[ExtendKey, str]:
    name = connection.dialect.name
    ((extend_id,),) = _UPSERT[name].rows(connection, row_of(new_id(), arrival, now))
    if name != "postgresql":
        ACCEPTED.rows(connection, line_of(extend_id, arrival, now))
    return {arrival.key: extend_id}


def line_of(extend_id: str, arrival: Arrival, now: float) -> dict[str, object]:
    """Return the values of an arrival's line in `transitions`."""
    return {
        "extend_id": extend_id,
        "at": now,
        "request_id": arrival.request_id,
        "global_request_id": arrival.global_request_id,
    }


def _open_many(connection: Connected, newest: Mapping[ExtendKey, Arrival], now: float) -> dict[ExtendKey, str]:
    ids = _open_ids(connection, newest)
    _raise_all(connection, [row_of(row_id, newest[key], now) for key, row_id in ids.items()])
    fresh = sorted(key for key in newest if key not in ids)
    ids.update({key: new_id() for key in fresh})
    _OPEN.run_many(connection, [row_of(ids[key], newest[key], now) for key in fresh])
    return ids


def _raise_all(connection: Connected, rows: Sequence[dict[str, object]]) -> None:
    """Raise the generation of open rows, which the caller has locked.

    PyMySQL sends an UPDATE for each row, but rows of an INSERT in one statement. Each of those rows is there.
    """
    if connection.dialect.name in {"mysql", "mariadb"}:
        _RAISE_BY_INSERT.run_many(connection, rows)
    else:
        _RAISE.run_many(connection, [{f"b_{name}": row[name] for name in ("id", *RENEWED)} for row in rows])


def _open_ids(connection: Connected, keys: Collection[ExtendKey]) -> dict[ExtendKey, str]:
    """Return the ids of these pairs' open rows, locked until the commit. On SQLite the transaction locks."""
    rows = _OPEN_IDS.run(connection, [{"server": key.server_id, "volume": key.volume_id} for key in keys], {})
    found = {ExtendKey(server_id, volume_id): row_id for row_id, server_id, volume_id in rows}
    return {key: found[key] for key in keys if key in found}


def row_of(row_id: str, arrival: Arrival, now: float) -> dict[str, object]:
    """Return the values of a new row in `extends`."""
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


def only_arrival(server_ids: Collection[str], choose: Choice) -> Arrival | None:
    """Return the arrival of a request with one event, whose server is on a host or need not be known."""
    if len(server_ids) > 1:
        return None
    arrivals = choose(dict.fromkeys(server_ids, ServerState.ON_HOST))
    if len(arrivals) != 1 or (server_ids and arrivals[0].key.server_id not in server_ids):
        return None
    return arrivals[0]


def open_alone(
    database: Database, arrival: Arrival, *, on_host: bool, now: float, kind: str
) -> Mapping[ExtendKey, str]:
    """Open an extend or raise its generation in a transaction of its own; return its id after the commit.

    The answer is empty where nothing was written: with `on_host` the server is not on a host, or this database has
    no such way. `kind` is the kind of transaction for readiness.
    """

    def row() -> dict[str, object]:
        """Return the values with a new id, because a try whose answer was lost may have used the id before."""
        return row_of(new_id(), arrival, now)

    driver, dialect = database.engine.driver, database.engine.dialect
    if driver == "psycopg":
        rows = database.write_alone(_OF_POSTGRESQL[on_host], row, kind=kind)
    elif driver == "pymysql" and getattr(dialect, "is_mariadb", False):
        rows = database.write_alone(_OF_MARIADB[on_host], row, kind=kind)
    elif driver == "pysqlite":
        line = line_of("", arrival, now)
        rows = database.write_prepared(lambda connection: _by_sqlite(connection, row(), line, on_host), kind=kind)
    else:
        return {}
    extend_id = rows[0][0] if rows else None
    return {arrival.key: extend_id} if extend_id is not None else {}


def _by_sqlite(
    connection: DriverConnection, row: Mapping[str, Any], line: Mapping[str, Any], on_host: bool
) -> list[Any]:
    rows: list[Any] = [(row["id"],)]
    if not _NEW_OF_SQLITE[on_host].changed(connection, row):
        rows = _UPSERT_OF_SQLITE[on_host].rows(connection, row)
    if rows:
        ACCEPTED.rows(connection, {**line, "extend_id": rows[0][0]})
    return rows


def _new_of_sqlite(*, on_host: bool) -> sa.Executable:
    made = sqlite.insert(extends)
    made = made.from_select([*NEW], new_row_on_host()) if on_host else made.values(NEW)
    fresh: sa.Executable = made.on_conflict_do_nothing(index_elements=UNIQUE)
    return fresh


_FRAME: Final = """BEGIN NOT ATOMIC
DECLARE may_open INT;
DECLARE opened_id VARCHAR(36);
START TRANSACTION;
{look} INTO may_open;
IF may_open THEN
{upsert};
{find} INTO opened_id;
{line};
END IF;
COMMIT;
SELECT opened_id;
END"""
"""A SELECT INTO reads the inventory without a lock. The last SELECT runs only after the commit."""


def _block_of_mariadb(*, on_host: bool) -> PreparedBlock:
    server = domains.c.server_id == NEW["server_id"]
    known = sa.select(sa.func.count()).where(server, domains.c.state != fixed(GONE))
    ours = [extends.c[name] == NEW[name] for name in UNIQUE]
    line = sa.insert(transitions).inline().values(
        extend_id=sa.literal_column("opened_id"),
        at=NEW["due_at"],
        event=fixed(AuditEvent.ACCEPTED.value),
        request_id=NEW["request_id"],
        global_request_id=NEW["global_request_id"],
    )  # fmt: skip
    return PreparedBlock(
        _FRAME,
        look=known if on_host else sa.select(fixed(1)),
        upsert=upsert_of_mysql(),
        find=sa.select(extends.c.id).where(*ours),
        line=line,
    )


_OF_POSTGRESQL: Final = {on_host: Prepared(upsert_of("postgresql", on_host=on_host)) for on_host in (False, True)}
_OF_MARIADB: Final = {on_host: _block_of_mariadb(on_host=on_host) for on_host in (False, True)}
_NEW_OF_SQLITE: Final = {on_host: Prepared(_new_of_sqlite(on_host=on_host)) for on_host in (False, True)}
_UPSERT_OF_SQLITE: Final = {on_host: Prepared(upsert_of("sqlite", on_host=on_host)) for on_host in (False, True)}
