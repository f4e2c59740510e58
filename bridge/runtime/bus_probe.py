# SPDX-License-Identifier: Apache-2.0
"""A look at our own bus now and then, because without messages for it nothing else notices that it is gone.

The look has a connection of its own, so a frozen broker never holds up the parts that publish.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Final

import kombu

from bridge.runtime.health import Health
from bridge.runtime.publisher import BusPublisher, NotPublishedError

_EVERY: Final = 10.0  # seconds between two looks


class BusProbe:
    """The look, and its word on the checks of the parts that publish. `words` begin the reason of a bad word."""

    def __init__(
        self,
        connect: Callable[[], kombu.Connection],
        health: Health,
        checks: Sequence[str],
        *,
        words: str,
        every: float = _EVERY,
    ) -> None:
        self._publisher = BusPublisher(connect)
        self._health = health
        self._checks = checks
        self._words = words
        self._every = every

    def run(self, stop: threading.Event) -> None:
        """Look until `stop` is set, the first time after one interval."""
        try:
            while not stop.wait(self._every):
                self.look()
        finally:
            self._publisher.close()

    def look(self) -> None:
        """Look once, and say on each check what came of it."""
        wrong = None
        try:
            self._publisher.look()
        except NotPublishedError as ex:
            wrong = f"{self._words}: {ex}"
        for check in self._checks:
            self._health.looked(check, wrong)
