# SPDX-License-Identifier: Apache-2.0
"""Retention: the engine deletes old rows in small batches, never an operator by hand."""

import time
from collections.abc import Callable
from typing import Final

import sqlalchemy as sa

from bridge.journal.database import Database
from bridge.journal.file_systems import delete_old
from bridge.journal.inventory import GONE
from bridge.journal.settings import Keep
from bridge.journal.tables import attempts, audit_heads, disks, domains, extends, hosts, transitions

_BITE: Final = 500  # rows per transaction: a long delete would hold up the API
_DAY: Final = 86400.0


class Retention:
    """Deletion of rows that are too old. Safe for several engines at once, because a row is deleted only once."""

    def __init__(self, database: Database, keep: Keep, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._keep = keep
        self._clock = clock

    def forget(self) -> int:
        """Delete up to one batch of each kind; return the number of rows. Raises JournalUnavailableError."""
        now = self._clock()
        closed_before = now - self._keep.closed_days * _DAY
        gone_before = now - self._keep.gone_days * _DAY

        def work(connection: sa.Connection) -> int:
            return (
                _closed(connection, closed_before)
                + _servers(connection, gone_before)
                + _hosts(connection, gone_before)
                + delete_old(connection, gone_before, _BITE)
                + _heads(connection, now - self._keep.audit_heads_days * _DAY)
            )

        return self._database.write(work)


def _closed(connection: sa.Connection, before: float) -> int:
    old = sa.select(extends.c.id).where(extends.c.open.is_(None), extends.c.closed_at < before).limit(_BITE)
    ids = list(connection.scalars(old))
    if ids:
        connection.execute(sa.delete(attempts).where(attempts.c.extend_id.in_(ids)))
        connection.execute(sa.delete(transitions).where(transitions.c.extend_id.in_(ids)))
        connection.execute(sa.delete(extends).where(extends.c.id.in_(ids)))
    return len(ids)


def _servers(connection: sa.Connection, before: float) -> int:
    old = sa.and_(domains.c.state == GONE, domains.c.seen_at < before)
    return int(connection.execute(sa.delete(domains).where(old)).rowcount)


def _heads(connection: sa.Connection, before: float) -> int:
    if not sa.inspect(connection).has_table(audit_heads.name):
        return 0  # tables of the release before
    old = sa.select(audit_heads.c.at).where(audit_heads.c.at < before).order_by(audit_heads.c.at).limit(_BITE)
    found = list(connection.scalars(old))
    if not found:
        return 0
    return int(connection.execute(sa.delete(audit_heads).where(audit_heads.c.at <= found[-1])).rowcount)


def _hosts(connection: sa.Connection, before: float) -> int:
    """Delete hosts that were silent for too long; their servers are known again when a host reports them."""
    silent = list(connection.scalars(sa.select(hosts.c.name).where(hosts.c.heartbeat_at < before).limit(_BITE)))
    for table, column in ((domains, domains.c.host), (disks, disks.c.host), (hosts, hosts.c.name)):
        if silent:
            connection.execute(sa.delete(table).where(column.in_(silent)))
    return len(silent)
