# SPDX-License-Identifier: Apache-2.0
"""From a grown volume to events: one per distinct attached server. Every row that gives none has its reason."""

from dataclasses import dataclass

from bridge.core.extend import ExtendKey
from bridge.core.reasons import Reason
from listener.parse import ResizeEnd, Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """The events, in the order of their first rows, and a reason for each row, or message, that gives none."""

    events: tuple[ExtendKey, ...]
    skipped: tuple[Reason, ...]


def translate(end: ResizeEnd) -> Translation:
    """Cinder itself sends one event per row and tells a server with two rows twice; once is enough."""
    events: dict[ExtendKey, None] = {}
    skipped: list[Reason] = []
    for row in end.rows:
        reason = _skip(row)
        key = ExtendKey(row.server_id or "", end.volume_id)
        if reason is None and key in events:
            reason = Reason.SAME_SERVER
        if reason is None:
            events[key] = None
        else:
            skipped.append(reason)
    if not end.rows:
        skipped.append(Reason.NOT_ATTACHED)
    return Translation(events=tuple(events), skipped=tuple(skipped))


def _skip(row: Row) -> Reason | None:
    if not row.readable:
        return Reason.BAD_ROW
    if row.server_id is None:
        return Reason.NO_SERVER
    return None if row.attached else Reason.ROW_NOT_ATTACHED
