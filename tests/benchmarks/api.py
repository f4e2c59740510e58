# SPDX-License-Identifier: Apache-2.0
"""The API in this process, without an HTTP server: commit and audit line included, on each database."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

import falcon
import sqlalchemy as sa

from bridge.core.extend import ExtendKey, new_id
from tests.benchmarks.measure import Row, median, per_item
from tests.benchmarks.rig import Rig, post
from tests.benchmarks.workspace import Workspace

_GROUP: Final = 100
_ROUNDS: Final = 5
_METADATA: Final = sa.MetaData()
_BARE: Final = sa.Table(
    "bare", _METADATA, sa.Column("id", sa.String(36), primary_key=True), sa.Column("what", sa.String(255))
)


def rows(workspace: Workspace) -> Iterator[Row]:
    """The figures, as they come. The budgets are SQLite's; the other two are for comparison."""
    for name, url in workspace.databases():
        rig = Rig(url, workspace.directory)
        engine = sa.create_engine(url)
        if engine.dialect.name == "sqlite":
            sa.event.listen(engine, "connect", _as_the_journal)
        _METADATA.create_all(engine)
        bare = falcon.App()
        bare.add_route("/v2.1/os-server-external-events", _Bare(engine))
        beside = f"falcon, json, one insert, commit on {name}"
        for size, full, budget in ((_GROUP, 1000, 150), (1, 200, 2500)):
            count = workspace.count(full, least=size)
            post(rig.app, rig.some(size))
            ours = median([_cost(rig.app, rig, count, size) for _ in range(_ROUNDS)])
            alone = median([_cost(bare, rig, count, size) for _ in range(_ROUNDS)])
            what = f"API, {f'{size} events' if size > 1 else 'one event'} per request, {name}"
            yield Row(
                what=what, value=ours, budget=budget if name == "SQLite" else None, bare=alone, bare_what=beside
            )
        engine.dispose()
        rig.close()


def _as_the_journal(connection: Any, _record: object) -> None:
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


class _Bare:
    """The least an answer to the same request costs: JSON in and out, and a row for each event committed."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._insert = str(sa.insert(_BARE).compile(dialect=engine.dialect))
        self._named = not sa.insert(_BARE).compile(dialect=engine.dialect).positional

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Read, insert, commit, answer."""
        events = json.loads(req.bounded_stream.read())["events"]
        pairs = [(new_id(), event["tag"]) for event in events]
        given: Any = [{"id": i, "what": w} for i, w in pairs] if self._named else pairs
        raw = self._engine.raw_connection()
        if self._engine.dialect.name == "sqlite":
            raw.cursor().execute("BEGIN IMMEDIATE")
        raw.cursor().executemany(self._insert, given)
        raw.commit()
        raw.close()
        resp.data = json.dumps({"events": [{**e, "status": "completed", "code": 200} for e in events]}).encode()
