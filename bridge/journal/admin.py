# SPDX-License-Identifier: Apache-2.0
"""The operator's view of the journal, and the operator's two actions on an extend: retry and discard."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from bridge.core.audit import AuditEvent
from bridge.core.extend import Arrival, ArrivalSource, ExtendKey
from bridge.core.outcome import THEN, Then
from bridge.journal.accept import open_extends
from bridge.journal.database import Database
from bridge.journal.hosts import read_capabilities
from bridge.journal.inventory import GONE
from bridge.journal.states import State
from bridge.journal.tables import attempts, disks, domains, extends, hosts, transitions

_FAILED: Final = sorted(outcome.value for outcome, then in THEN.items() if then is Then.FAIL)
DISCARDED: Final = "discarded"
"""Outcome of an extend that an operator took out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtendFilter:
    """The extends to list: `state` is open, due, dispatched, closed, failed or all; None means any server or
    volume.
    """

    state: str = "open"
    server: str | None = None
    volume: str | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """Counts of the whole journal. Times in epoch seconds; `failed`: disks whose newest extend ended as failed."""

    open: int
    dispatched: int
    overdue: int
    oldest: float | None
    failed: int
    hosts: int
    silent: int


class Admin:
    """The operator's reads and actions. Each method raises JournalUnavailableError."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def events(self, wanted: ExtendFilter) -> Sequence[Mapping[str, Any]]:
        """Return extends: the oldest open extends first, closed extends with the newest first."""
        query = sa.select(extends).limit(wanted.limit)
        if wanted.state == "open":
            query = query.where(extends.c.open == 1)
        elif wanted.state == "failed":
            query = query.where(extends.c.outcome.in_(_FAILED))
        elif wanted.state != "all":
            query = query.where(extends.c.state == wanted.state)
        for column, value in ((extends.c.server_id, wanted.server), (extends.c.volume_id, wanted.volume)):
            if value is not None:
                query = query.where(column == value.lower())
        is_open = wanted.state in {"open", "due", "dispatched"}
        query = query.order_by(extends.c.opened_at if is_open else extends.c.opened_at.desc())
        return self._database.read(lambda c: [dict(row) for row in c.execute(query).mappings()])

    def event(self, extend_id: str) -> tuple[Mapping[str, Any], list[str]] | None:
        """Return one extend with its history as text, or None."""

        def ask(connection: sa.Connection) -> tuple[Mapping[str, Any], list[str]] | None:
            row = connection.execute(sa.select(extends).where(extends.c.id == extend_id)).mappings().one_or_none()
            if row is None:
                return None
            moves = connection.execute(
                sa.select(transitions).where(transitions.c.extend_id == extend_id).order_by(transitions.c.serial)
            ).mappings()
            orders = connection.execute(
                sa.select(attempts).where(attempts.c.extend_id == extend_id).order_by(attempts.c.number)
            ).mappings()
            history = [(move["at"], _words(dict(move), "event", "outcome", "reason", "host")) for move in moves]
            history += [
                (
                    order["ended_at"],
                    f"attempt {_words(dict(order), 'number', 'outcome', 'reason', 'host', 'target', 'size_after')}",
                )
                for order in orders
                if order["ended_at"] is not None
            ]
            return dict(row), [f"{at:.6f} {text}" for at, text in sorted(history)]

        return self._database.read(ask)

    def retry(self, extend_id: str, *, request_id: str) -> tuple[ExtendKey, str] | None:
        """Make an open extend due now, or open an ended one again.

        Return the disk and the id of its open extend; None if the extend does not exist.
        """

        def work(connection: sa.Connection) -> tuple[ExtendKey, str] | None:
            row = connection.execute(sa.select(extends).where(extends.c.id == extend_id)).mappings().one_or_none()
            if row is None:
                return None
            key = ExtendKey(row["server_id"], row["volume_id"])
            arrival = Arrival(
                key=key,
                request_id=request_id,
                global_request_id=row["global_request_id"],
                traceparent=row["traceparent"],
                source=ArrivalSource.OPERATOR,
            )
            return key, open_extends(connection, [arrival], self._clock())[key]

        return self._database.write(work)

    def discard(self, extend_id: str) -> ExtendKey | None:
        """Close an open extend without a host's report; return None if no such extend is open."""
        now = self._clock()

        def work(connection: sa.Connection) -> ExtendKey | None:
            mine = sa.and_(extends.c.id == extend_id, extends.c.open == 1)
            row = connection.execute(sa.select(extends).where(mine).with_for_update()).mappings().one_or_none()
            if row is None:
                return None
            connection.execute(
                sa.update(extends)
                .where(mine)
                .values(state=State.CLOSED.value, open=None, closed_at=now, outcome=DISCARDED, waiting_for=None)
            )
            connection.execute(
                sa.insert(transitions).values(
                    extend_id=extend_id, at=now, event=AuditEvent.DISCARDED.value, outcome=DISCARDED,
                    request_id=row["request_id"], global_request_id=row["global_request_id"],
                )
            )  # fmt: skip
            return ExtendKey(row["server_id"], row["volume_id"])

        return self._database.write(work)

    def hosts(self) -> Sequence[Mapping[str, Any]]:
        """Return each host that reported and is not forgotten, with the number of its servers.

        `capabilities`: the volume types the host can extend; `unsupported`: {type: why not}.
        """
        number = (
            sa.select(sa.func.count())
            .where(domains.c.host == hosts.c.name, domains.c.state != GONE)
            .scalar_subquery()
            .label("servers")
        )
        query = sa.select(hosts, number).order_by(hosts.c.name)

        def shown(row: Mapping[Any, Any]) -> Mapping[str, Any]:
            can, cannot = read_capabilities(row["capabilities"])
            return {**row, "capabilities": can, "unsupported": cannot}

        return self._database.read(lambda c: [shown(row) for row in c.execute(query).mappings()])

    def disks(self, host: str) -> Sequence[Mapping[str, Any]]:
        """Return the disk sizes a host reports: server, volume, bytes."""
        query = sa.select(disks).where(disks.c.host == host).order_by(disks.c.server_id, disks.c.volume_id)
        return self._database.read(lambda c: [dict(row) for row in c.execute(query).mappings()])

    def standing(self, *, host_timeout: float) -> Overview:
        """Return the counts; a host not heard for `host_timeout` seconds is silent."""
        since = self._clock() - host_timeout

        def ask(connection: sa.Connection) -> Overview:
            is_open = extends.c.open == 1
            number, oldest = connection.execute(
                sa.select(sa.func.count(), sa.func.min(extends.c.opened_at)).where(is_open)
            ).one()
            newer = extends.alias("newer")
            later = sa.exists().where(
                newer.c.server_id == extends.c.server_id,
                newer.c.volume_id == extends.c.volume_id,
                newer.c.opened_at > extends.c.opened_at,
            )

            def count(*where: sa.ColumnElement[bool]) -> int:
                return int(connection.scalar(sa.select(sa.func.count()).where(*where)) or 0)

            return Overview(
                open=number,
                oldest=oldest,
                dispatched=count(is_open, extends.c.state == State.DISPATCHED.value),
                overdue=count(is_open, extends.c.overdue_at.is_not(None)),
                failed=count(extends.c.outcome.in_(_FAILED), ~later),
                hosts=count(hosts.c.name.is_not(None)),
                silent=count(hosts.c.heartbeat_at < since),
            )

        return self._database.read(ask)


def _words(row: Mapping[Any, Any], *names: str) -> str:
    return " ".join(
        f"{name}={row[name]}" if name != "event" else str(row[name]) for name in names if row[name] is not None
    )
