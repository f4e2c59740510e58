# SPDX-License-Identifier: Apache-2.0
"""Extends that become due because a host came up, or because guests moved to it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from bridge.core.extend import Arrival, ArrivalSource, ExtendKey
from bridge.journal.accept import open_extends
from bridge.journal.hosts import HostUpdate
from bridge.journal.states import State
from bridge.journal.tables import attempts, extends

_MIGRATION: Final = 3600.0  # seconds a live migration may take for a resize on its source to be looked at again


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedByMove:
    """An extend that was opened because its guest came to another host than the one that closed the last extend."""

    extend_id: str
    key: ExtendKey
    host: str
    global_request_id: str | None
    traceparent: str | None


def hand_over(connection: sa.Connection, heard: HostUpdate, now: float) -> None:
    """Make extends due that wait for the host, and extends of its last run, because that run is gone."""
    due_now = {"due_at": now, "waiting_for": None}
    connection.execute(
        sa.update(extends).where(extends.c.open == 1, extends.c.waiting_for == heard.host).values(**due_now)
    )
    if heard.restarted:
        in_hand = sa.select(attempts.c.extend_id).where(
            attempts.c.host == heard.host, attempts.c.ended_at.is_(None)
        )
        connection.execute(
            sa.update(extends)
            .where(extends.c.open == 1, extends.c.state == State.DISPATCHED, extends.c.id.in_(in_hand))
            .values(**due_now)
        )


def look_again(connection: sa.Connection, moved_in: Sequence[str], now: float) -> int:
    """Make the extends of guests due that have just become active on a host; return their number."""
    back = connection.execute(
        sa.update(extends)
        .where(
            extends.c.open == 1, extends.c.state == State.DUE.value, extends.c.server_id.in_(moved_in),
            extends.c.due_at > now,
        )
        .values(due_at=now)
    )  # fmt: skip
    return int(back.rowcount)


def open_again(connection: sa.Connection, host: str, moved_in: Sequence[str], now: float) -> list[OpenedByMove]:
    """Open the extends again that another host closed a short while ago, before their guests came to this host.

    A guest may have left a resize behind on the host it came from. The extend ends as `already` if all is well.
    """
    elsewhere = connection.execute(
        sa.select(extends.c.server_id, extends.c.volume_id, extends.c.global_request_id, extends.c.traceparent)
        .join(attempts, sa.and_(attempts.c.extend_id == extends.c.id, attempts.c.gen == extends.c.wanted_gen))
        .where(
            extends.c.server_id.in_(moved_in),
            extends.c.open.is_(None),
            extends.c.closed_at > now - _MIGRATION,
            attempts.c.outcome == extends.c.outcome,
            attempts.c.host != host,
        )
        .order_by(extends.c.closed_at)
    )
    arrivals = {
        (key := ExtendKey(server_id, volume_id)): Arrival(
            key=key,
            global_request_id=request_id,
            traceparent=traceparent,
            source=ArrivalSource.RECONCILE,
        )
        for server_id, volume_id, request_id, traceparent in elsewhere
    }
    ids = open_extends(connection, list(arrivals.values()), now) if arrivals else {}
    return [
        OpenedByMove(
            extend_id=extend_id, key=key, host=host, global_request_id=arrivals[key].global_request_id,
            traceparent=arrivals[key].traceparent,
        )
        for key, extend_id in ids.items()
    ]  # fmt: skip
