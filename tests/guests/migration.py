# SPDX-License-Identifier: Apache-2.0
"""One live migration of a guest from one libvirtd to another, under way until it is let go."""

import threading
from typing import Any, Final

from tests.lab.waiting import until

_LIVE, _UNSAFE, _POSTCOPY = 1, 512, 1 << 15  # VIR_MIGRATE_*; unsafe: libvirt cannot know that the storage is shared
_SLOW, _FAST = 1, 2000  # MiB a second
_JOB_RUNS: Final = frozenset({1, 2})  # virDomainJobType
_SECONDS: Final = 120.0


class LiveMigration:
    """Starts slowly, so that it is still under way when `begin` has returned."""

    def __init__(self, source: Any, destination: Any, server_id: str, *, postcopy: bool = False) -> None:
        """`source` and `destination`: connections of their own, since the calls on them take as long as the job."""
        self._source, self._destination, self._server_id = source, destination, server_id
        self._flags = _LIVE | _UNSAFE | (_POSTCOPY if postcopy else 0)
        self._errors: list[Exception] = []
        self._thread = threading.Thread(target=self._migrate, daemon=True)

    def begin(self, watched: Any) -> None:
        """Return when it is under way; `watched` is the domain, found on another connection."""
        watched.migrateSetMaxSpeed(_SLOW)
        self._thread.start()
        until(
            lambda: not self._thread.is_alive() or watched.jobStats().get("type") in _JOB_RUNS,
            "the migration is under way", seconds=_SECONDS,
        )  # fmt: skip

    def end(self, watched: Any) -> None:
        """Let it go as fast as it can; return when the guest is on the other side."""
        if self._thread.is_alive():
            watched.migrateSetMaxSpeed(_FAST)
        self._thread.join(_SECONDS)
        if self._thread.is_alive():
            raise AssertionError(f"the migration has not ended within {_SECONDS:g} s")
        if self._errors:
            raise self._errors[0]

    def cancel(self, watched: Any) -> None:
        """Cancel it; return when the guest is alone on its side again."""
        watched.abortJob()
        self._thread.join(_SECONDS)
        if self._thread.is_alive() or not self._errors:
            raise AssertionError("the migration was not cancelled")

    def _migrate(self) -> None:
        try:
            domain = self._source.lookupByUUIDString(self._server_id)
            domain.migrate3(self._destination, {"migrate_uri": "tcp://127.0.0.1"}, self._flags)
        except Exception as ex:  # noqa: BLE001 - raised in `end`
            self._errors.append(ex)
