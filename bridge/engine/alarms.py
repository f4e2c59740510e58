# SPDX-License-Identifier: Apache-2.0
"""Alarms about hosts that speak for another host, send too much, or claim another host's guest."""

import logging
import time
from collections.abc import Callable
from typing import Final

from cachetools import TTLCache

from bridge.core.audit import AuditEvent, AuditRecord
from bridge.core.clean import clean
from bridge.core.extend import ExtendKey
from bridge.core.reasons import Reason
from bridge.runtime.audit import AuditLog
from bridge.runtime.metrics import EngineMetrics

LOG = logging.getLogger(__name__)

_QUIET: Final = 60.0  # seconds in which a repeated alarm is counted, but not logged or audited
_ALARMS_MOST: Final = 10_000
_NAMES_MOST: Final = 500  # values of the metric's label; further host names count as one value
_OTHERS: Final = "others"


class Seldom:
    """A limit on log lines about hosts, because a host can make the engine say the same as often as it likes."""

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._lately: TTLCache[str, bool] = TTLCache(maxsize=_ALARMS_MOST, ttl=seconds, timer=clock)

    def about(self, host: str) -> bool:
        """Return True unless it returned True for this host lately."""
        if host in self._lately:
            return False
        self._lately[host] = True
        return True


class HostAlarms:
    """Alarms with a metric each time, and a log and an audit line once a minute.

    Each thread needs its own instance.
    """

    def __init__(
        self, *, metrics: EngineMetrics, audit: AuditLog, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._metrics = metrics
        self._audit = audit
        self._names: set[str] = set()
        self._lately: TTLCache[tuple[object, ...], bool] = TTLCache(maxsize=_ALARMS_MOST, ttl=_QUIET, timer=clock)

    def sound(self, reason: Reason, host: str, detail: str, *, key: ExtendKey | None = None) -> None:
        """Sound an alarm about `host`; `key` names the disk, if the alarm is about one disk."""
        if len(self._names) < _NAMES_MOST:
            self._names.add(host)
        self._metrics.host_alarms.labels(reason.value, host if host in self._names else _OTHERS).inc()
        if (reason, host, key) in self._lately:
            return
        self._lately[reason, host, key] = True
        detail = clean(detail, 500)
        LOG.error("host %s: %s: %s", host, reason.text, detail)
        self._audit.write(
            AuditRecord.of(
                key, AuditEvent.ALARM, time.time(), host=host, reason=reason.value, data={"detail": detail}
            )
        )
