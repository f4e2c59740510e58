# SPDX-License-Identifier: Apache-2.0
"""What the engine looks at every few seconds besides its work: what is overdue, how it stands, what to forget."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from bridge.core.audit import AuditEvent, AuditRecord
from bridge.core.errors import JournalUnavailableError
from bridge.journal.behind import Behind
from bridge.journal.claims import Claims
from bridge.journal.retention import Retention
from bridge.journal.states import Extend
from bridge.runtime.audit import AuditLog
from bridge.runtime.metrics import EngineMetrics

LOG = logging.getLogger(__name__)

_SWEEP: Final = 10.0  # seconds between looks at what is overdue
_BEHIND_EVERY: Final = 6  # sweeps: who is behind is a question over all extends that are kept


class Sweeper:
    """The body of a supervised thread."""

    def __init__(
        self,
        *,
        work: Claims,
        behind: Behind,
        retention: Retention,
        overdue_after: float,
        metrics: EngineMetrics,
        audit: AuditLog,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._work = work
        self._behind = behind
        self._retention = retention
        self._overdue_after = overdue_after
        self._metrics = metrics
        self._audit = audit
        self._clock = clock
        self._sweeps = 0

    def run(self, stop: threading.Event) -> None:
        """Until told to stop."""
        while not stop.wait(_SWEEP):
            try:
                self.sweep()
            except JournalUnavailableError:
                continue  # the dispatcher says so in health

    def sweep(self) -> None:
        """Look once. Raises JournalUnavailableError."""
        while late := self._work.mark_overdue(older_than=self._overdue_after):
            self._say_overdue(late)
        standing = self._work.standing()
        self._metrics.open.set(standing.open)
        self._metrics.oldest.set(self._age(standing.oldest))
        self._retention.forget()
        if self._sweeps % _BEHIND_EVERY == 0:
            self._show_behind()
        self._sweeps += 1

    def _show_behind(self) -> None:
        now = self._behind.numbers()
        self._metrics.behind_oldest.set(self._age(now.since))
        for gauge, numbers in ((self._metrics.behind, now.behind), (self._metrics.unseen, now.unseen)):
            gauge.clear()
            for reason, number in numbers.items():
                gauge.labels(reason).set(number)

    def _age(self, at: float | None) -> float:
        return 0.0 if at is None else max(0.0, self._clock() - at)

    def _say_overdue(self, late: list[Extend]) -> None:
        self._metrics.overdue.inc(len(late))
        for extend in late:
            LOG.warning(
                "extend of volume %s on server %s is overdue; it goes on",
                extend.key.volume_id, extend.key.server_id,
            )  # fmt: skip
        self._audit.write(
            *(
                AuditRecord(
                    event=AuditEvent.OVERDUE, at=self._clock(), extend_id=extend.id, server=extend.key.server_id,
                    volume=extend.key.volume_id,
                )
                for extend in late
            )
        )  # fmt: skip
