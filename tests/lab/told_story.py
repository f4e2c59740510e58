# SPDX-License-Identifier: Apache-2.0
"""The stories of `audit trace` beside the journal of the same run: what each says of each extend."""

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bridge.audit import logfiles, trace
from bridge.audit.entry import Entry
from bridge.audit.grouping import by_volume
from bridge.audit.logfiles import Reading
from bridge.audit.story import Story, stories
from bridge.core.audit import AuditEvent
from bridge.core.reasons import Reason

_BEGINS: Final = {AuditEvent.ACCEPTED, AuditEvent.BEHIND}
_KEPT: Final = (
    AuditEvent.DISPATCHED, AuditEvent.CLOSED, AuditEvent.FAILED, AuditEvent.REOPENED, AuditEvent.OVERDUE,
    AuditEvent.WAITING, AuditEvent.REPORTED,
)  # fmt: skip
"""Events that the journal notes in the transaction whose audit line follows."""
_NOT_SENT: Final = {Reason.UNDELIVERABLE, Reason.CAST_FAILED, Reason.BUS_BLOCKED}
_TRACED: Final = 5  # volumes that are traced by themselves as well, because each reads all logs
_CLOCK: Final = 5.0  # seconds between a commit and its line, on a busy machine


@dataclass(slots=True)
class _Row:
    """An extend as the journal has it: its row, the orders that were sent, the counts of its transitions."""

    extend: Mapping[str, Any]
    orders: set[tuple[int, str]] = field(default_factory=set)
    unsent: set[tuple[int, str]] = field(default_factory=set)
    noted: Counter[str] = field(default_factory=Counter)


def differences(logs: Sequence[Path], journal: Path, *, killed: bool) -> Iterator[str]:
    """Yield a line for each extend of which the logs tell another story than the journal.

    `killed`: daemons were killed, so the line of a committed transition may be missing. No line may say more than
    the journal, and what is missing must not change the end of the story.
    """
    rows, told = _journal(journal), _told(logs)
    for story in (story for stories_ in told.values() for story in stories_):
        if story.extend_id is not None and story.extend_id not in rows:
            yield f"volume {story.volume}: told of extend {story.extend_id}, which the journal does not have"
    for extend_id, row in rows.items():
        volume = row.extend["volume_id"]
        mine = [story for story in told[volume] if story.extend_id == extend_id]
        found = [f"{len(mine)} stories"] if len(mine) != 1 else [*_end(mine[0], row), *_way(mine[0], row, killed)]
        yield from (f"extend {extend_id} of volume {volume}: {difference}" for difference in found)
    for volume in sorted({row.extend["volume_id"] for row in rows.values()})[:_TRACED]:
        traced = trace.trace(logs, volume)
        alone = [story.entries for story in traced.stories]
        if alone != [story.entries for story in sorted(told[volume], key=lambda story: story.began)]:
            yield f"volume {volume}: its trace has other lines than its stories"
        if not killed:
            yield from trace.unknown(traced)


def _journal(path: Path) -> dict[str, _Row]:
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        rows = {row["id"]: _Row(dict(row)) for row in connection.execute("SELECT * FROM extends")}
        for order in connection.execute("SELECT extend_id, number, host, reason FROM attempts"):
            row = rows[order["extend_id"]]
            (row.unsent if order["reason"] in _NOT_SENT else row.orders).add((order["number"], order["host"]))
        for extend_id, event in connection.execute("SELECT extend_id, event FROM transitions"):
            rows[extend_id].noted[event] += 1
    return rows


def _told(logs: Sequence[Path]) -> dict[str, list[Story]]:
    told: dict[str, list[Story]] = defaultdict(list)
    reading = Reading()
    for entries in by_volume(logfiles.lines(logs, reading, label="reading"), reading, size=0, wanted=_has_a_volume):
        for story in stories(entries)[0]:
            told[story.volume].append(story)
    return told


def _has_a_volume(entry: Entry) -> bool:
    return entry.volume is not None


def _end(story: Story, row: _Row) -> Iterator[str]:
    """Yield what is told otherwise of the extend as a whole."""
    extend = row.extend
    if story.server != extend["server_id"]:
        yield f"of server {extend['server_id']}, told of {story.server}"
    is_over = story.ended is not None or story.standing == "discarded"
    if (extend["open"] is None) != is_over:
        yield f"state {extend['state']}, told {story.standing}"
    again = story.last is not None and story.last.event == AuditEvent.LATE  # a report that came once more
    if is_over and story.result != extend["outcome"] and not again:
        yield f"outcome {extend['outcome']}, told {story.result}"


def _way(story: Story, row: _Row, killed: bool) -> Iterator[str]:
    """Yield what is told otherwise of the way to the end."""
    told = Counter(entry.event for entry in story.entries)
    for event in _KEPT:
        unsent = len(row.unsent) if event is AuditEvent.DISPATCHED else 0
        if told[event] > row.noted[event] or (told[event] < row.noted[event] - unsent and not killed):
            yield f"{row.noted[event]} times {event.value}, told {told[event]} times"
    cast = {(e.attempt, e.host) for e in story.entries if e.event == AuditEvent.DISPATCHED}
    if not cast <= row.orders | row.unsent or (not row.orders <= cast and not killed):
        yield f"orders {sorted(row.orders)}, told {sorted(cast, key=str)}"
    begun = [e.at for e in story.entries if e.event in _BEGINS]
    if begun and abs(min(begun) - row.extend["opened_at"]) > _CLOCK and not killed:
        yield f"opened at {row.extend['opened_at']}, told {min(begun)}"
