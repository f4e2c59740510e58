# SPDX-License-Identifier: Apache-2.0
"""Reconciliation: a guest that is behind its volume gets an extend, even if no event was sent.

Each sweep pages through Cinder's volumes in use and compares each attachment with the size its guest sees. A guest
behind its volume gets an extend. Sweeps are slow and never come in a burst, because they only mend lost events.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bridge.core.audit import AuditEvent, AuditRecord
from bridge.core.errors import JournalUnavailableError
from bridge.core.extend import Arrival, ArrivalSource, ExtendKey, made_by, new_id
from bridge.engine.cinder import CinderReader, Gone, NotNow, Page
from bridge.engine.compare import Comparison, stuck, survey
from bridge.engine.upstream import GOOD_FOR
from bridge.journal.accept import Journal
from bridge.journal.database import Database
from bridge.journal.findings import Finding, Findings, FindingState, agents_of, known
from bridge.journal.hosts import Alive
from bridge.journal.sweeps import Passes, SweepLease
from bridge.runtime.audit import AuditLog
from bridge.runtime.health import Health
from bridge.runtime.metrics import ReconcileMetrics
from bridge.runtime.retry import Backoff

LOG = logging.getLogger(__name__)

RECONCILE: Final = "engine.reconcile"
_ON_ITS_WAY: Final = "a reconcile sweep is running"
_IDLE: Final = 5.0  # seconds between looks whether a sweep is due
_MINUTE: Final = 60.0
_PORTIONS: Final = 6  # portions in which a minute's extends are opened


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRate:
    """The pace of a sweep: `page` volumes a request, `pause` seconds between two, at most `opens` extends a minute.

    A host counts as alive for `host_timeout` seconds after its last message. A volume is shown after `stuck_after`
    seconds in `extending`.
    """

    page: int
    pause: float
    opens: int
    host_timeout: float
    stuck_after: float = 900.0


class Reconciler:
    """One supervised thread; among all engines on one journal, one sweeps the volumes at a time."""

    def __init__(
        self,
        *,
        passes: Passes,
        sightings: Findings,
        cinder: CinderReader,
        database: Database,
        journal: Journal,
        pace: OpenRate,
        on_due: Callable[[], None],
        health: Health,
        metrics: ReconcileMetrics,
        audit: AuditLog,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._passes = passes
        self._sightings = sightings
        self._cinder = cinder
        self._database = database
        self._journal = journal
        self._pace = pace
        self._on_due = on_due
        self._health = health
        self._metrics = metrics
        self._audit = audit
        self._clock = clock

    def run(self, stop: threading.Event) -> None:
        """Take the lease and sweep whenever a sweep is due, until `stop` is set."""
        away, failures = Backoff(first=1, cap=60, floor=1), 0
        self._health.ok(RECONCILE, "waiting for the time of its next pass", good_for=GOOD_FOR)
        while not stop.is_set():
            try:
                turn = self._passes.take()
                whole = turn is None or self._pass(turn, stop)
                self._show(well=whole)
            except JournalUnavailableError as ex:
                whole = False
                self._health.bad(RECONCILE, str(ex))
            failures = 0 if whole else failures + 1
            stop.wait(_IDLE if whole else away.delay(failures))
        self._leave()

    def _leave(self) -> None:
        """Give the lease back at once. Otherwise the other engines wait for its timeout, as after a crash."""
        try:
            self._passes.leave()
        except JournalUnavailableError as ex:
            LOG.info("the lease of the reconcile sweep was not released; it expires by itself: %s", ex)

    def _pass(self, turn: SweepLease, stop: threading.Event) -> bool:
        """Go on with a sweep; return True if it ended, `stop` was set, or another engine took the lease."""
        request_id = f"req-{new_id()}"
        self._sightings.begin()
        while not stop.is_set():
            page = self._cinder.in_use(marker=turn.marker, limit=self._pace.page)
            if isinstance(page, NotNow):
                self._health.bad(RECONCILE, str(page))
                return False
            if isinstance(page, Gone):
                LOG.info(
                    "volume %s, the last of a page, was deleted: the reconcile sweep starts again", turn.marker
                )
                turn = replace(turn, marker=None, counts={})
                continue
            self._health.ok(RECONCILE, _ON_ITS_WAY, good_for=GOOD_FOR + self._pace.pause)
            found = self._look(page, turn)
            behind = [finding for finding in found if finding.sight is FindingState.BEHIND]
            if not self._open_slowly(behind, turn, request_id, stop):
                return True
            counts = Counter(turn.counts) + Counter(finding.sight.value for finding in found)
            turn = replace(turn, marker=page.marker, counts=counts)
            if page.marker is None:
                self._look_at_extending(turn)
                self._end(turn, request_id)
                return True
            if not self._passes.keep(turn):
                return True
            stop.wait(self._pace.pause)
        return True

    def _look_at_extending(self, turn: SweepLease) -> None:
        """Write down the volumes that have been `extending` for long, which no other page and no event shows."""
        page = self._cinder.extending(marker=None, limit=self._pace.page)
        if not isinstance(page, Page):
            LOG.info("volumes that are being extended cannot be listed: %s", page)
            return
        now = self._clock()
        found = [each for volume in page.volumes for each in stuck(volume, now=now, after=self._pace.stuck_after)]
        self._sightings.note(
            {each.key.volume_id for each in found}, [finding_of(each) for each in found],
            at=max(now, turn.started_at),
        )  # fmt: skip
        for each in found:
            LOG.warning(
                "volume %s of server %s has been extending in Cinder for %.0f s",
                each.key.volume_id, each.key.server_id, now - (each.since or now),
            )  # fmt: skip

    def _look(self, page: Page, turn: SweepLease) -> list[Comparison]:
        """Return the comparisons of one page; those that are not fine are written down."""
        now = self._clock()
        found = survey_page(self._database, page, now=now, host_timeout=self._pace.host_timeout)
        self._sightings.note(
            {volume.id for volume in page.volumes},
            [finding_of(finding) for finding in found if finding.sight is not FindingState.FINE],
            at=max(now, turn.started_at),
        )
        return found

    def _open_slowly(
        self, behind: Sequence[Comparison], turn: SweepLease, request_id: str, stop: threading.Event
    ) -> bool:
        """Open extends in small portions, so many a minute; return True if the lease was kept to the end."""
        portion = max(1, self._pace.opens // _PORTIONS)
        for start in range(0, len(behind), portion):
            some = behind[start : start + portion]
            self._open(some, request_id, self._clock())
            pause = _MINUTE * len(some) / self._pace.opens
            self._health.ok(RECONCILE, _ON_ITS_WAY, good_for=GOOD_FOR + pause)
            if stop.wait(pause) or not self._passes.keep(turn):
                return False
        return True

    def _open(self, behind: Sequence[Comparison], request_id: str, now: float) -> None:
        open_found(behind, self._journal, self._audit, request_id=request_id, now=now)
        self._on_due()
        self._metrics.opened.inc(len(behind))
        for each in behind:
            LOG.warning(
                "server %s on host %s is behind its volume %s: it sees %s of %d bytes; an extend is opened",
                each.key.server_id, each.host, each.key.volume_id, each.size, each.wanted,
            )  # fmt: skip

    def _end(self, turn: SweepLease, request_id: str) -> None:
        if not self._passes.end(turn):
            return
        self._sightings.forget(before=turn.started_at)
        now = self._clock()
        LOG.info(
            "a reconcile sweep over all volumes in use ended after %.0f s: %s",
            now - turn.started_at,
            _words(turn.counts),
        )
        self._audit.write(
            AuditRecord(
                event=AuditEvent.SURVEYED,
                at=now,
                request_id=request_id,
                seconds=now - turn.started_at,
                data=dict(turn.counts),
            )
        )

    def _show(self, *, well: bool) -> None:
        last = self._passes.last()
        self._metrics.last_pass.set(last.ended_at or 0)
        for sight in FindingState:
            self._metrics.guests.labels(sight.value).set(last.counts.get(sight.value, 0))
        if well:
            ended = last.ended_at is not None
            said = f"last pass: {_words(last.counts)}" if ended else "no pass has ended yet"
            self._health.ok(RECONCILE, said, good_for=GOOD_FOR)


def survey_page(database: Database, page: Page, *, now: float, host_timeout: float) -> list[Comparison]:
    """Return the comparisons of a page's volumes with the journal. Raises JournalUnavailableError."""
    settled = [volume for volume in page.volumes if not volume.extending]
    alive = Alive(since=now - host_timeout, until=now + host_timeout)
    facts = known(database, {volume.id for volume in settled}, alive)
    unseen = {
        attached.host
        for volume in settled
        for attached in volume.attached
        if attached.host is not None and ExtendKey(attached.server_id, volume.id) not in facts.seen
    }
    if unseen:
        facts = replace(facts, agents=agents_of(database, unseen, alive))
    return [finding for volume in settled for finding in survey(volume, facts)]


def open_found(
    behind: Sequence[Comparison], journal: Journal, audit: AuditLog, *, request_id: str, now: float
) -> None:
    """Open an extend for each guest that is behind, and audit that. Raises JournalUnavailableError."""
    traces = {each.key: made_by("engine", None) for each in behind}
    ids = journal.accept(
        [
            Arrival(key=key, request_id=request_id, traceparent=traceparent, source=ArrivalSource.RECONCILE)
            for key, traceparent in traces.items()
        ]
    )
    audit.write(
        *(
            AuditRecord.of(
                each.key,
                AuditEvent.BEHIND,
                now,
                host=each.host,
                extend_id=ids.get(each.key),
                request_id=request_id,
                traceparent=traces[each.key],
                data={"size": each.size, "wanted": each.wanted, "source": ArrivalSource.RECONCILE.value},
            )
            for each in behind
        )
    )


def finding_of(finding: Comparison) -> Finding:
    """Return the journal's row for a comparison."""
    return Finding(
        key=finding.key, sight=finding.sight, reason=finding.reason or "", host=finding.host, size=finding.size,
        wanted=finding.wanted, since=finding.since,
    )  # fmt: skip


def _words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{counts.get(sight.value, 0)} {sight.value}" for sight in FindingState)
