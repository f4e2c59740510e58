# SPDX-License-Identifier: Apache-2.0
"""A progress bar on a terminal, nothing elsewhere."""

import sys
from typing import Final

_WIDTH: Final = 30


class Bar:
    """How far a run of so many notifications and faults is."""

    def __init__(self, notifications: int, faults: int) -> None:
        self._notifications = notifications
        self._faults = faults
        self._shown = sys.stderr.isatty()

    def show(self, told: int, done: int, *, behind: int | None = None) -> None:
        """Draw it anew."""
        if not self._shown:
            return
        share = (told + done) / max(1, self._notifications + self._faults)
        full = int(_WIDTH * min(1.0, share))
        rest = "" if behind is None else f", {behind} disks behind"
        sys.stderr.write(
            f"\r[{'#' * full}{' ' * (_WIDTH - full)}] {told}/{self._notifications} notifications, "
            f"{done}/{self._faults} faults{rest}   "
        )
        sys.stderr.flush()

    def end(self) -> None:
        """Leave it standing."""
        if self._shown:
            sys.stderr.write("\n")
