# SPDX-License-Identifier: Apache-2.0
"""Extends that become due because a host came up, or because guests moved to it."""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from bridge.core.extend import Arrival, ArrivalSource, ExtendKey
from bridge.journal.accept import open_extends
from bridge.journal.hosts import HostUpdate
from bridge.journal.states import State
from bridge.journal.tables import attempts, extends

_MIGRATION: Final = 3600.0  # seconds a live migration may take for a resize on its source to be looked at again


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


def look_again(connection: sa.Connection, host: str, moved_in: Sequence[str], now: float) -> int:
    """Make the extends of guests due that have just become active on a host; return their number.

    A guest may have left a resize behind on the host it came from. So an extend which that host closed a short
    while ago is opened again. The extend ends as `already` if all is well.
    """
    back = connection.execute(
        sa.update(extends)
        .where(
            extends.c.open == 1, extends.c.state == State.DUE.value, extends.c.server_id.in_(moved_in),
            extends.c.due_at > now,
        )
        .values(due_at=now)
    )  # fmt: skip
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
    )
    arrivals = [
        Arrival(
            key=ExtendKey(server_id, volume_id),
            global_request_id=request_id,
            traceparent=traceparent,
            source=ArrivalSource.RECONCILE,
        )
        for server_id, volume_id, request_id, traceparent in elsewhere
    ]
    if arrivals:
        open_extends(connection, arrivals, now)
    return int(back.rowcount) + len(arrivals)
