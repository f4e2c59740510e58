# SPDX-License-Identifier: Apache-2.0
"""The rows that open an extend, or raise the generation of the open one, in a transaction of the caller."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite

from bridge.core.audit import AuditEvent
from bridge.core.extend import Arrival, ExtendKey, new_id
from bridge.journal.inventory import GONE
from bridge.journal.statements import Connected, Prepared, PreparedForRows, names
from bridge.journal.states import State
from bridge.journal.tables import domains, extends, transitions


def fixed(value: str | int) -> sa.ColumnClause[Any]:
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
