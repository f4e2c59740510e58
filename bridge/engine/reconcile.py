# SPDX-License-Identifier: Apache-2.0
"""Reconciliation: whether or not anybody sent an event, a guest that is behind its volume gets an extend.

Pages Cinder's volumes in use, compares each attachment with the size its guest sees, opens what is behind. Slowly,
and never in a burst: this mends what was lost, it is not how extends usually come.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from bridge.core.errors import JournalUnavailableError
from bridge.core.extend import Arrival, ExtendKey, Source, new_id
from bridge.core.messages import GuestState
from bridge.core.trail import Event, Record
from bridge.engine.cinder import CinderReader, Gone, NotNow, Page, Volume
from bridge.journal.database import Database
from bridge.journal.hosts import Alive
from bridge.journal.passes import Passes, Turn
from bridge.journal.seen import Known, Seen, known
from bridge.journal.store import Journal
from bridge.runtime.audit_log import AuditLog
from bridge.runtime.backoff import Backoff
from bridge.runtime.health import Health
from bridge.runtime.metrics import ReconcileMetrics

LOG = logging.getLogger(__name__)

RECONCILE: Final = "engine.reconcile"
_IDLE: Final = 5.0  # seconds between looks whether it is time


class Sight(StrEnum):
    """What is seen of one attached volume."""

    FINE = "fine"  # the guest has the size, or is off and has it when it starts
    BEHIND = "behind"  # the guest sees less than the volume has
    OPEN = "open"  # the guest is behind, and an extend is on its way
    FAILED = "failed"  # the guest is behind, and an extend to this size was given up on: a person has to look
    CANNOT_SEE = "cannot_see"  # no living host reports the disk, or libvirt does not say its size
    BUSY = "busy"  # on its way between two hosts: looked at in the next pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One attached volume and what is seen of it; `host` and `size` where a guest is behind."""

    key: ExtendKey
    sight: Sight
    wanted: int
    host: str | None = None
    size: int | None = None


def survey(volume: Volume, facts: Known) -> list[Finding]:
    """Judge each attachment of one volume. Pure."""
    keys = dict.fromkeys(ExtendKey(attached.server_id, volume.id) for attached in volume.attached)
    return [_judge(key, volume.size, facts) for key in keys]


def _judge(key: ExtendKey, wanted: int, facts: Known) -> Finding:
    living = [seen for seen in facts.seen.get(key, ()) if seen.alive]
    if any(seen.state is GuestState.INCOMING for seen in living):
        return Finding(key=key, sight=Sight.BUSY, wanted=wanted)
    here = _here(living)
    if here is None or (here.size is None and here.state is GuestState.ACTIVE):
        return Finding(key=key, sight=Sight.CANNOT_SEE, wanted=wanted)
    size = max(here.size or 0, facts.verified.get(key, 0))
    if here.state is GuestState.OFF or size >= wanted:
        return Finding(key=key, sight=Sight.FINE, wanted=wanted)
    sight = Sight.BEHIND
    if key in facts.open:
        sight = Sight.OPEN
    elif facts.failed.get(key, 0) >= wanted:
        sight = Sight.FAILED
    return Finding(key=key, sight=sight, wanted=wanted, host=here.host, size=size)


def _here(living: list[Seen]) -> Seen | None:
    """Where the guest is: its running domain, else a defined one."""
    return min(living, key=lambda seen: (seen.state is not GuestState.ACTIVE, seen.host), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """`page` volumes a request, `pause` seconds between two, `opens` extends a minute at most.

    A host counts as alive for `host_timeout` seconds after its last word.
    """

    page: int
    pause: float
    opens: int
    host_timeout: float


class Reconciler:
    """One supervised thread; of all engines on one journal one goes over the volumes at a time."""

    def __init__(
        self,
        *,
        passes: Passes,
        cinder: CinderReader,
        database: Database,
        journal: Journal,
        pace: Pace,
        on_due: Callable[[], None],
        health: Health,
        metrics: ReconcileMetrics,
        audit: AuditLog,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._passes = passes
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
        """Until told to stop."""
        away, failures = Backoff(first=1, cap=60, floor=1), 0
        self._health.ok(RECONCILE, "waiting for the time of its next pass")
        while not stop.is_set():
            try:
                turn = self._passes.take()
                whole = turn is None or self._pass(turn, stop)
                self._show()
            except JournalUnavailableError as ex:
                whole = False
                self._health.bad(RECONCILE, str(ex))
            failures = 0 if whole else failures + 1
            stop.wait(_IDLE if whole else away.delay(failures))

    def _pass(self, turn: Turn, stop: threading.Event) -> bool:
        """Go on with a pass; whether it came to its end, or to somebody else."""
        request_id = f"req-{new_id()}"
        while not stop.is_set():
            page = self._cinder.in_use(marker=turn.marker, limit=self._pace.page)
            if isinstance(page, NotNow):
                self._health.bad(RECONCILE, page.reason.text)
                return False
            if isinstance(page, Gone):
                LOG.info("volume %s, the last of a page, is gone: the pass begins anew", turn.marker)
                turn = replace(turn, marker=None, counts={})
                continue
            self._health.ok(RECONCILE, "going over the volumes")
            counts, opened = self._look(page, request_id)
            turn = replace(turn, marker=page.marker, counts=Counter(turn.counts) + counts)
            if page.marker is None:
                self._end(turn, request_id)
                return True
            if not self._passes.keep(turn):
                return True
            stop.wait(max(self._pace.pause, 60.0 * opened / self._pace.opens))
        return True

    def _look(self, page: Page, request_id: str) -> tuple[Counter[str], int]:
        """One page: what was seen, and how many extends were opened."""
        now = self._clock()
        alive = Alive(since=now - self._pace.host_timeout, until=now + self._pace.host_timeout)
        facts = known(self._database, {volume.id for volume in page.volumes}, alive)
        settled = [volume for volume in page.volumes if not volume.extending]
        found = [finding for volume in settled for finding in survey(volume, facts)]
        behind = [finding for finding in found if finding.sight is Sight.BEHIND][: self._pace.opens]
        if behind:
            self._open(behind, request_id, now)
        return Counter(finding.sight.value for finding in found), len(behind)

    def _open(self, behind: list[Finding], request_id: str, now: float) -> None:
        self._journal.accept(
            [Arrival(key=each.key, request_id=request_id, source=Source.RECONCILE) for each in behind]
        )
        self._on_due()
        self._metrics.opened.inc(len(behind))
        for each in behind:
            LOG.warning(
                "server %s on host %s is behind its volume %s: it sees %s of %d bytes; an extend is opened",
                each.key.server_id, each.host, each.key.volume_id, each.size, each.wanted,
            )  # fmt: skip
        self._audit.write(
            *(
                Record(
                    event=Event.BEHIND,
                    at=now,
                    server=each.key.server_id,
                    volume=each.key.volume_id,
                    host=each.host,
                    request_id=request_id,
                    data={"size": each.size, "wanted": each.wanted, "source": Source.RECONCILE.value},
                )
                for each in behind
            )
        )

    def _end(self, turn: Turn, request_id: str) -> None:
        if not self._passes.end(turn):
            return
        now = self._clock()
        LOG.info(
            "a pass over all volumes in use ended after %.0f s: %s", now - turn.started_at, _words(turn.counts)
        )
        self._audit.write(
            Record(
                event=Event.SURVEYED,
                at=now,
                request_id=request_id,
                seconds=now - turn.started_at,
                data=dict(turn.counts),
            )
        )

    def _show(self) -> None:
        last = self._passes.last()
        self._metrics.last_pass.set(last.ended_at or 0)
        for sight in Sight:
            self._metrics.guests.labels(sight.value).set(last.counts.get(sight.value, 0))
        if last.ended_at is not None:
            self._health.ok(RECONCILE, f"last pass: {_words(last.counts)}")


def _words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{counts.get(sight.value, 0)} {sight.value}" for sight in Sight)
