# SPDX-License-Identifier: Apache-2.0
"""Guests that are behind their volume now, with start and reason; and guests that no host can see.

The rows come from open extends, failed extends, and what the last sweep found and no extend has mended since.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from bridge.core.extend import ExtendKey
from bridge.core.outcome import THEN, Then, Told
from bridge.core.reasons import Reason
from bridge.journal.database import Database
from bridge.journal.findings import FindingState
from bridge.journal.inventory import GONE
from bridge.journal.tables import disks, domains, extends, sightings

_FAILED: Final = sorted(outcome.value for outcome, then in THEN.items() if then is Then.FAIL)


@dataclass(frozen=True, slots=True, kw_only=True)
class BehindGuest:
    """One guest that is behind, or cannot be seen. `why` is a code; sizes in bytes, None if unknown."""

    key: ExtendKey
    since: float
    why: str
    host: str | None
    size: int | None = None
    wanted: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """Counts of guests that are behind or cannot be seen, by reason; `since` is of the oldest behind, or None.

    `extending_since` is of the oldest guest whose volume is still `extending` in Cinder.
    """

    behind: Mapping[str, int]
    unseen: Mapping[str, int]
    since: float | None
    extending_since: float | None = None


class Behind:
    """Reads of late guests; each method raises JournalUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def numbers(self) -> Numbers:
        """Return the counts by reason, made by the database."""

        def ask(connection: sa.Connection) -> Numbers:
            behind: dict[str, int] = {}
            unseen: dict[str, int] = {}
            oldest: list[float] = []
            extending: float | None = None
            rows = _behind().subquery()
            for why, number, since in connection.execute(
                sa.select(rows.c.why, sa.func.count(), sa.func.min(rows.c.since)).group_by(rows.c.why)
            ):
                behind[why] = number
                if why == Reason.VOLUME_EXTENDING:
                    extending = since
                if why != Reason.SEEN_AT_RESTART:  # the guest may run for years, and nothing is late
                    oldest.append(since)
            counted = connection.execute(
                sa.select(sightings.c.reason, sa.func.count()).where(_is_unseen()).group_by(sightings.c.reason)
            )
            unseen.update((why, number) for why, number in counted)
            return Numbers(behind=behind, unseen=unseen, since=min(oldest, default=None), extending_since=extending)

        return self._database.read(ask)

    def behind(self, *, limit: int) -> list[BehindGuest]:
        """Return the guests that are behind, the longest first."""
        rows = _behind().subquery()
        query = sa.select(rows).order_by(rows.c.since).limit(limit)
        return self._database.read(lambda c: [_lag(row) for row in c.execute(query)])

    def unseen(self, *, limit: int) -> list[BehindGuest]:
        """Return the guests that no host can see, the longest first."""
        query = (
            sa.select(
                sightings.c.server_id, sightings.c.volume_id, sightings.c.since, sightings.c.reason.label("why"),
                sightings.c.host, sightings.c.size, sightings.c.wanted,
            )
            .where(_is_unseen())
            .order_by(sightings.c.since)
            .limit(limit)
        )  # fmt: skip
        return self._database.read(lambda c: [_lag(row) for row in c.execute(query)])


def _behind() -> sa.CompoundSelect[Any]:
    """Select open extends, the newest failed one of each disk, and findings that are not mended since."""
    seen = sa.and_(sightings.c.server_id == extends.c.server_id, sightings.c.volume_id == extends.c.volume_id)
    columns = [extends.c.server_id, extends.c.volume_id]
    sizes = [sightings.c.size.label("size"), sightings.c.wanted.label("wanted")]
    since = sa.func.coalesce(sightings.c.since, extends.c.opened_at).label("since")
    why = sa.func.coalesce(extends.c.reason, Reason.ON_ITS_WAY.value).label("why")
    host = sa.func.coalesce(extends.c.waiting_for, sightings.c.host).label("host")
    joined = extends.outerjoin(sightings, seen)
    is_open = sa.select(*columns, since, why, host, *sizes).select_from(joined).where(extends.c.open == 1)
    newer = extends.alias("newer")
    later = sa.exists().where(
        newer.c.server_id == extends.c.server_id,
        newer.c.volume_id == extends.c.volume_id,
        newer.c.opened_at > extends.c.opened_at,
    )
    failed = (
        sa.select(*columns, since, why, host, *sizes)
        .select_from(joined)
        .where(extends.c.outcome.in_(_FAILED), extends.c.open.is_(None), ~later)
    )
    untold = sa.select(
        sightings.c.server_id, sightings.c.volume_id, sightings.c.since, sightings.c.reason.label("why"),
        sightings.c.host, sightings.c.size, sightings.c.wanted,
    ).where(sightings.c.sight == FindingState.BEHIND.value, ~_dealt_with(), ~_reached())  # fmt: skip
    is_extending = sa.select(
        sightings.c.server_id, sightings.c.volume_id, sightings.c.since, sightings.c.reason.label("why"),
        sightings.c.host, sightings.c.size, sightings.c.wanted,
    ).where(_is_extending(), ~_dealt_with())  # fmt: skip
    return sa.union_all(is_open, failed, untold, is_extending, _not_told())


def _is_extending() -> sa.ColumnElement[bool]:
    """Match findings of a volume that has been `extending` for long. Engines before this reason know their state
    too.
    """
    return sa.and_(
        sightings.c.sight == FindingState.CANNOT_SEE.value, sightings.c.reason == Reason.VOLUME_EXTENDING.value
    )


def _is_unseen() -> sa.ColumnElement[bool]:
    return sa.and_(
        sightings.c.sight == FindingState.CANNOT_SEE.value, sightings.c.reason != Reason.VOLUME_EXTENDING.value
    )


def _not_told() -> sa.Select[Any]:
    """Select disks that have their size in guests that do not know it yet, or not before their restart."""
    closed = (
        sa.select(sa.func.max(extends.c.closed_at))
        .where(
            extends.c.server_id == disks.c.server_id,
            extends.c.volume_id == disks.c.volume_id,
            extends.c.reason == Reason.SEEN_AT_RESTART.value,
        )
        .scalar_subquery()
    )
    is_open = sa.exists().where(
        extends.c.server_id == disks.c.server_id, extends.c.volume_id == disks.c.volume_id, extends.c.open == 1
    )
    why = sa.case((disks.c.told == Told.NO.value, Reason.GUEST_NOT_TOLD.value), else_=Reason.SEEN_AT_RESTART.value)
    return (
        sa.select(
            disks.c.server_id, disks.c.volume_id, sa.func.coalesce(closed, domains.c.seen_at).label("since"),
            why.label("why"), disks.c.host, sa.null().label("size"), disks.c.size.label("wanted"),
        )
        .join(domains, sa.and_(domains.c.server_id == disks.c.server_id, domains.c.host == disks.c.host))
        .where(disks.c.told.in_([Told.NO.value, Told.AT_RESTART.value]), domains.c.state != GONE, ~is_open)
    )  # fmt: skip


def _dealt_with() -> sa.Exists:
    """Match guests with an extend that is open or has ended since, because its outcome says more."""
    return sa.exists().where(
        extends.c.server_id == sightings.c.server_id,
        extends.c.volume_id == sightings.c.volume_id,
        sa.or_(extends.c.open == 1, extends.c.closed_at >= sightings.c.seen_at),
    )


def _reached() -> sa.Exists:
    """Match guests whose host now reports the wanted size."""
    return sa.exists().where(
        disks.c.server_id == sightings.c.server_id,
        disks.c.volume_id == sightings.c.volume_id,
        disks.c.size >= sightings.c.wanted,
    )


def _lag(row: Any) -> BehindGuest:
    return BehindGuest(
        key=ExtendKey(row.server_id, row.volume_id), since=row.since, why=row.why, host=row.host, size=row.size,
        wanted=row.wanted,
    )  # fmt: skip
