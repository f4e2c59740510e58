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
_LEAST: Final = "falcon, json, the same three statements by the driver, commit"


def rows(workspace: Workspace) -> Iterator[Row]:
    """The figures, as they come. One event is held to twice its bare library's cost."""
    for name, url in workspace.databases():
        rig = Rig(url, workspace.directory)
        engine = sa.create_engine(url)
        if engine.dialect.name == "sqlite":
            sa.event.listen(engine, "connect", as_the_journal)
        bare = bare_app(engine)
        for size, full, budget in ((_GROUP, 1000, _OF_A_GROUP.get(name)), (1, 200, None)):
            count = workspace.count(full, least=size)
            post(rig.app, rig.some(size))
            pairs = [(_cost(rig.app, rig, count, size), _cost(bare, rig, count, size)) for _ in range(_ROUNDS)]
            ours, alone = median([cost for cost, _ in pairs]), median([cost for _, cost in pairs])
            what = f"API, {f'{size} events' if size > 1 else 'one event'} per request, {name}"
            yield Row(
                what=what, value=ours, budget=budget or (2 * alone if size == 1 else None), bare=alone,
                bare_what=_LEAST,
            )  # fmt: skip
        engine.dispose()
        rig.close()


def as_the_journal(connection: Any, _record: object) -> None:
    """Write as durably as the journal does."""
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def _cost(app: Any, rig: Rig, count: int, size: int) -> float:
    requests = [rig.some(size) for _ in range(max(1, count // size))]
    return per_item(lambda: _post_all(app, requests), len(requests) * size)


def _post_all(app: Any, requests: Sequence[Sequence[ExtendKey]]) -> None:
    for keys in requests:
        post(app, keys)


def bare_app(engine: sa.Engine) -> Any:
    """The least an answer to the same request costs: JSON in and out, and what has to be read and written.

    The server's row is read, a row of `extends` and its line in `transitions` are written, and all is committed.
    """
    app = falcon.App()
    app.add_route("/v2.1/os-server-external-events", _Bare(engine))
    return app


class _Bare:
    """The resource of such an application; nothing is retried, limited, authenticated or logged."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
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
        """Read, insert, commit, answer."""
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
        for values in given:
            self._state.rows(connection, values)
        self._row.run_many(connection, given)
        self._line.run_many(connection, given)
        raw.commit()
        raw.close()
        resp.data = json.dumps({"events": [{**e, "status": "completed", "code": 200} for e in events]}).encode()
