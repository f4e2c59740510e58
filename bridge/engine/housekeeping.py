# SPDX-License-Identifier: Apache-2.0
"""Housekeeping every few seconds: marks overdue extends, takes up lost claims, sets gauges, sounds alarms, deletes
old rows."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from bridge.core.audit import AuditEvent, AuditRecord
from bridge.core.errors import JournalUnavailableError
from bridge.core.reasons import Reason
from bridge.engine.alarms import HostAlarms
from bridge.journal.behind import Behind
from bridge.journal.claims import Claims
from bridge.journal.file_systems import FileSystems
from bridge.journal.retention import Retention
from bridge.journal.states import Extend
from bridge.runtime.audit import AuditLog
from bridge.runtime.metrics import EngineMetrics

LOG = logging.getLogger(__name__)

_SWEEP: Final = 10.0  # seconds between looks for overdue extends
_BEHIND_EVERY: Final = 6  # sweeps: the query for guests behind reads all extends that are kept


class Sweeper:
    """The body of the supervised housekeeping thread."""

    def __init__(
        self,
        *,
        work: Claims,
        behind: Behind,
        file_systems: FileSystems | None = None,
        retention: Retention,
        overdue_after: float,
        host_timeout: float = 60.0,
        report_within: float = 300.0,
        metrics: EngineMetrics,
        audit: AuditLog,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._work = work
        self._behind = behind
        self._file_systems = file_systems
        self._retention = retention
        self._overdue_after = overdue_after
        self._host_timeout = host_timeout
        self._report_within = report_within
        self._disputed: set[str] = set()
        self._alarms = HostAlarms(metrics=metrics, audit=audit)
        self._metrics = metrics
        self._audit = audit
        self._clock = clock
        self._sweeps = 0

    def run(self, stop: threading.Event) -> None:
        """Sweep until `stop` is set."""
        while not stop.wait(_SWEEP):
            try:
                self.sweep()
            except JournalUnavailableError:
                continue  # the dispatcher shows that in health

    def sweep(self) -> None:
        """Sweep once. Raises JournalUnavailableError."""
        while late := self._work.mark_overdue(older_than=self._overdue_after):
            self._say_overdue(late)
        if returned := self._work.return_unordered(report_within=self._report_within):
            LOG.warning("%d extends were claimed and no order was sent: an engine or the database died", returned)
        standing = self._work.standing()
        self._metrics.open.set(standing.open)
        self._metrics.oldest.set(self._age(standing.oldest))
        self._retention.forget()
        if self._sweeps % _BEHIND_EVERY == 0:
            self._show_behind()
            self._show_file_systems()
            self._show_disputed()
        self._sweeps += 1

    def _show_behind(self) -> None:
        now = self._behind.numbers()
        self._metrics.behind_oldest.set(self._age(now.since))
        self._metrics.extending_oldest.set(self._age(now.extending_since))
        for gauge, numbers in ((self._metrics.behind, now.behind), (self._metrics.unseen, now.unseen)):
            gauge.clear()
            for reason, number in numbers.items():
                gauge.labels(reason).set(number)

    def _show_file_systems(self) -> None:
        counts = self._file_systems.counts() if self._file_systems is not None else {}
        self._metrics.file_systems.clear()
        for state, number in counts.items():
            self._metrics.file_systems.labels(state).set(number)

    def _show_disputed(self) -> None:
        """Sound an alarm for guests that several hosts claim now and claimed in the last look, a minute ago.

        A migration takes less than a minute.
        """
        now = self._work.disputed(host_timeout=self._host_timeout)
        still = {server: hosts for server, hosts in now.items() if server in self._disputed}
        self._disputed = set(now)
        self._metrics.disputed.set(len(still))
        for server, hosts in still.items():
            for host in hosts:
                self._alarms.sound(
                    Reason.HOSTS_DISAGREE, host, f"server {server} is claimed by {', '.join(sorted(hosts))}"
                )

    def _age(self, at: float | None) -> float:
        return 0.0 if at is None else max(0.0, self._clock() - at)

    def _say_overdue(self, late: list[Extend]) -> None:
        self._metrics.overdue.inc(len(late))
        for extend in late:
            LOG.warning(
                "extend of volume %s on server %s is overdue; it is still tried",
                extend.key.volume_id, extend.key.server_id,
            )  # fmt: skip
        self._audit.write(
            *(
                AuditRecord.of(
                    extend.key,
                    AuditEvent.OVERDUE,
                    self._clock(),
                    extend_id=extend.id,
                    traceparent=extend.traceparent,
                )
                for extend in late
            )
        )
