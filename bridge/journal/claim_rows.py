# SPDX-License-Identifier: Apache-2.0
"""The three statements of a claim, built once: an extend that comes alone waits for each of them."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from bridge.core.extend import ExtendKey, new_id
from bridge.journal.prepared import Prepared
from bridge.journal.states import Extend, State
from bridge.journal.tables import extends

EXTEND_COLUMNS: Final = (
    extends.c.id, extends.c.server_id, extends.c.volume_id, extends.c.wanted_gen, extends.c.attempt,
    extends.c.failures, extends.c.opened_at, extends.c.request_id, extends.c.global_request_id,
)  # fmt: skip


def _bind(name: str, like: sa.ColumnElement[Any]) -> sa.BindParameter[Any]:
    return sa.bindparam(name, type_=like.type)


_DUE: Final = Prepared(
    sa.select(extends.c.id, extends.c.attempt, extends.c.state)
    .where(
        extends.c.open == 1,
        sa.or_(
            extends.c.due_at <= _bind("b_now", extends.c.due_at),
            extends.c.due_at > _bind("b_horizon", extends.c.due_at),
        ),
    )
    .order_by(extends.c.due_at)
    .limit(sa.bindparam("b_limit", type_=sa.Integer()))
)
_TAKE: Final = Prepared(
    sa.update(extends)
    .where(
        extends.c.id == _bind("b_id", extends.c.id),
        extends.c.attempt == _bind("b_attempt", extends.c.attempt),
        extends.c.open == 1,
    )
    .values(
        state=_bind("b_state", extends.c.state),
        due_at=_bind("b_due_at", extends.c.due_at),
        attempt=extends.c.attempt + 1,
        claim=_bind("b_claim", extends.c.claim),
        waiting_for=sa.null(),
    )
)
_MINE: Final = Prepared(sa.select(*EXTEND_COLUMNS).where(extends.c.claim == _bind("b_claim", extends.c.claim)))

Due = tuple[str, int, str]
"""Id, attempt and state of a row that is due."""


def due(connection: sa.Connection, now: float, horizon: float, limit: int) -> list[Due]:
    """Up to `limit` rows due at `now`, or later than `horizon`; oldest first decides which, ids in which order."""
    rows: list[Any] = list(_DUE.run(connection, {"b_now": now, "b_horizon": horizon, "b_limit": limit}))
    return sorted((row_id, attempt, state) for row_id, attempt, state in rows)


def take(connection: sa.Connection, rows: Sequence[Due], due_at: float) -> list[Extend]:
    """Claim those of the rows nobody else has claimed meanwhile; `unreported` where a claim had lapsed."""
    claim = {"b_state": State.DISPATCHED.value, "b_due_at": due_at, "b_claim": new_id()}
    _TAKE.run_many(connection, [{**claim, "b_id": row_id, "b_attempt": attempt} for row_id, attempt, _ in rows])
    lapsed = {row_id for row_id, _, state in rows if state == State.DISPATCHED}
    mine = _MINE.run(connection, {"b_claim": claim["b_claim"]})
    return [dataclasses.replace(extend_of(row), unreported=row[0] in lapsed) for row in mine]


def extend_of(row: Sequence[Any]) -> Extend:
    """An open extend from the values of EXTEND_COLUMNS, in their order."""
    row_id, server_id, volume_id, wanted_gen, attempt, failures, opened_at, request_id, global_request_id = row
    return Extend(
        id=row_id,
        key=ExtendKey(server_id, volume_id),
        wanted_gen=wanted_gen,
        attempt=attempt,
        failures=failures,
        opened_at=opened_at,
        request_id=request_id,
        global_request_id=global_request_id,
    )
