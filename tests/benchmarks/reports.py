# SPDX-License-Identifier: Apache-2.0
"""What a host's report costs: read, settled and committed, alone and in groups of 12, beside the driver alone."""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

from bridge.core.messages import HostMessage, Report
from tests.benchmarks.measure import Row, median, per_item
from tests.benchmarks.replay import caught, replay
from tests.benchmarks.rig import Rig
from tests.benchmarks.workspace import Workspace

_ROUNDS: Final = 8
_GROUP: Final = 12
_BATCH: Final = 200  # messages the engine takes at once when so many wait


def rows(workspace: Workspace) -> Iterator[Row]:
    """The figures, as they come. The budgets are SQLite's; the other two are for comparison."""
    for name, url in workspace.databases():
        rig = Rig(url, workspace.directory)
        own = name == "SQLite"
        count = workspace.count(240)
        for what, size, at_once, budget in (
            (f"report taken and closed, groups of {_GROUP}, a commit each", _GROUP, 1, 120),
            ("report taken and closed, alone in its message, 200 waiting", 1, _BATCH, 350),
            ("report taken and closed, alone with a commit of its own", 1, 1, None),
        ):
            costs = [_round(rig, count, size, at_once) for _ in range(_ROUNDS)]
            yield Row(
                what=f"{what}, {name}",
                value=median([ours for ours, _ in costs]),
                budget=budget if own else None,
                bare=median([alone for _, alone in costs]),
                bare_what="driver, same statements and commits",
            )
        rig.close()


def _round(rig: Rig, count: int, size: int, at_once: int) -> tuple[float, float]:
    """µs a report by the engine's way, and by the driver alone with the same statements."""
    batches = _batches_of(rig, rig.dispatched(count), size, at_once)
    ours = per_item(lambda: _take_all(rig, batches), count)
    again = _batches_of(rig, rig.dispatched(count), size, at_once)
    transactions = [caught(rig.database.engine, partial(_take, rig, batch)) for batch in again]
    return ours, per_item(lambda: replay(rig.database.engine, transactions), count)


def _batches_of(rig: Rig, reports: Sequence[Report], size: int, at_once: int) -> list[list[bytes]]:
    messages = [rig.wire(tuple(reports[n : n + size])) for n in range(0, len(reports), size)]
    return [messages[n : n + at_once] for n in range(0, len(messages), at_once)]


def _take_all(rig: Rig, batches: Sequence[Sequence[bytes]]) -> None:
    for batch in batches:
        _take(rig, batch)


def _take(rig: Rig, batch: Sequence[bytes]) -> None:
    taken = rig.reported.take([HostMessage.from_wire(json.loads(message)) for message in batch])
    assert all(settled.extend is not None for settled in taken.settled)
