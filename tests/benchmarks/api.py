# SPDX-License-Identifier: Apache-2.0
"""The API in this process, without an HTTP server: commit and audit line included, on each database."""

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import falcon
import sqlalchemy as sa

from bridge.core.extend import ExtendKey, new_id
from bridge.journal.database import DriverConnection, Prepared
from bridge.journal.tables import domains, extends, transitions
from tests.benchmarks.measure import Row, median, per_item
from tests.benchmarks.rig import Rig, post
from tests.benchmarks.workspace import Workspace

_GROUP: Final = 100
_ROUNDS: Final = 5
_OF_A_GROUP: Final = {"SQLite": 150, "MariaDB": 100}
_LEAST: Final = "falcon, json, one INSERT by the driver, commit"


def rows(workspace: Workspace) -> Iterator[Row]:
    """The figures, as they come. One event is held to twice its bare library's cost."""
    for name, url in workspace.databases():
        rig = Rig(url, workspace.directory)
        engine = sa.create_engine(url)
        if engine.dialect.name == "sqlite":
            sa.event.listen(engine, "connect", as_the_journal)
        bare, same = bare_app(engine), bare_app(engine, whole=True)
        for size, full, budget in ((_GROUP, 1000, _OF_A_GROUP.get(name)), (1, 200, None)):
            count = workspace.count(full, least=size)
            for app in (rig.app, bare, same):
                post(app, rig.arriving(size))
            costs = [tuple(_cost(app, rig, count, size) for app in (rig.app, bare, same)) for _ in range(_ROUNDS)]
            ours, least, statements = (median(of_one) for of_one in zip(*costs, strict=True))
            what = f"{f'{size} events' if size > 1 else 'one event'} per request, {name}"
            yield Row(
                what=f"API, {what}", value=ours, budget=budget or (2 * least if size == 1 else None), bare=least,
                bare_what=_LEAST,
            )  # fmt: skip
            if size == 1:
                yield Row(what=f"  the API's own three statements by the driver alone, {what}", value=statements)
        engine.dispose()
        rig.close()


def as_the_journal(connection: Any, _record: object) -> None:
    """Write as durably as the journal does."""
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def _cost(app: Any, rig: Rig, count: int, size: int) -> float:
    requests = [rig.arriving(size) for _ in range(max(1, count // size))]
    return per_item(lambda: _post_all(app, requests), len(requests) * size)


def _post_all(app: Any, requests: Sequence[Sequence[ExtendKey]]) -> None:
    for keys in requests:
        post(app, keys)


def bare_app(engine: sa.Engine, *, whole: bool = False) -> Any:
    """The least that an honest answer to the same request costs: JSON in and out, and a row that is committed.

    With `whole` the server's row is read before, and a line in `transitions` is written, as the API must.
    """
    app = falcon.App()
    app.add_route("/v2.1/os-server-external-events", _Bare(engine, whole=whole))
    return app


class _Bare:
    """The resource of such an application; nothing is retried, limited, authenticated or logged."""

    def __init__(self, engine: sa.Engine, *, whole: bool) -> None:
        self._engine = engine
        self._whole = whole
        new = {"open": 1, "state": "due", "source": "api", "wanted_gen": 1, "attempt": 0, "failures": 0}
        names = ("id", "server_id", "volume_id", "due_at", "opened_at", "request_id")
        state = sa.select(domains.c.state).where(domains.c.server_id == sa.bindparam("server_id"))
        row = sa.insert(extends).values(new | {name: sa.bindparam(name) for name in names})
        line = sa.insert(transitions).inline().values(
            extend_id=sa.bindparam("id"), at=sa.bindparam("due_at"), event="accepted",
            request_id=sa.bindparam("request_id"),
        )  # fmt: skip
        self._state, self._row, self._line = Prepared(state), Prepared(row), Prepared(line)

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Insert, commit, answer."""
        events = json.loads(req.bounded_stream.read())["events"]
        now, request_id = time.time(), f"req-{new_id()}"
        given = [
            {"id": new_id(), "server_id": event["server_uuid"], "volume_id": new_id(), "due_at": now,
             "opened_at": now, "request_id": request_id}
            for event in events
        ]  # fmt: skip
        raw = self._engine.raw_connection()
        if self._engine.dialect.name == "sqlite":
            raw.cursor().execute("BEGIN IMMEDIATE")
        connection = DriverConnection(raw, self._engine.dialect)
        if self._whole:
            for values in given:
                self._state.rows(connection, values)
        for statement in (self._row, self._line) if self._whole else (self._row,):
            if len(given) == 1:
                statement.rows(connection, given[0])
            else:
                statement.run_many(connection, given)
        raw.commit()
        raw.close()
        resp.data = json.dumps({"events": [{**e, "status": "completed", "code": 200} for e in events]}).encode()
