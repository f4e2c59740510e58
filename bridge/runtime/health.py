# SPDX-License-Identifier: Apache-2.0
"""What is ready and what is not, each with its reason. Parts write, the ops port and the logs read."""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing a daemon needs."""

    ok: bool
    reason: str


class Health:
    """Named checks. A change is logged once, so that the log tells when something went away and came back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._checks: dict[str, Check] = {}

    def expect(self, *names: str) -> None:
        """Announce checks, not ready until their part says so."""
        with self._lock:
            for name in names:
                self._checks.setdefault(name, Check(ok=False, reason="starting"))

    def ok(self, name: str, reason: str = "ok") -> None:
        """Say that it works."""
        self._set(name, Check(ok=True, reason=reason))

    def bad(self, name: str, reason: str) -> None:
        """Say that it does not, and why, in words a person can act on."""
        self._set(name, Check(ok=False, reason=reason))

    def checks(self) -> Mapping[str, Check]:
        """A copy of all checks, by name."""
        with self._lock:
            return dict(self._checks)

    def ready(self) -> bool:
        """Whether every check is ok."""
        return all(check.ok for check in self.checks().values())

    def _set(self, name: str, check: Check) -> None:
        with self._lock:
            before = self._checks.get(name)
            self._checks[name] = check
        if before is None or before.ok != check.ok or (not check.ok and before.reason != check.reason):
            LOG.log(
                logging.INFO if check.ok else logging.WARNING,
                "%s is %s: %s",
                name,
                "ready" if check.ok else "not ready",
                check.reason,
            )
