# SPDX-License-Identifier: Apache-2.0
"""The commit of a request with one event, in the fewest messages to each database that are safe.

Nearly all requests have one event, and each waits for every round trip. PyMySQL also reads each answer in Python.
So the condition (the inventory has the server on a host), the row of `extends` and its line in `transitions` travel
together.

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

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from bridge.core.audit import AuditEvent
from bridge.core.extend import Arrival, ExtendKey, ServerState, new_id
from bridge.journal.database import Database
from bridge.journal.inventory import GONE
from bridge.journal.opening import (
    ACCEPTED,
    NEW,
    UNIQUE,
    fixed,
    line_of,
    new_row_on_host,
    row_of,
    upsert_of,
    upsert_of_mysql,
)
from bridge.journal.statements import DriverConnection, Prepared, PreparedBlock
from bridge.journal.tables import domains, extends, transitions

Choice = Callable[[Mapping[str, ServerState]], Sequence[Arrival]]
"""A function that decides which arrivals are accepted, from the states of their servers."""


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
