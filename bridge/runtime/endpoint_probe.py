# SPDX-License-Identifier: Apache-2.0
"""A look at the endpoint now and then, because without events nothing else notices that the endpoint is gone.

The look reads the endpoint's version document, which changes nothing. Any answer of its server counts, because a
proxy may let only the events through. A gateway's answer that its server is gone does not count.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Final

from bridge.core.reasons import Reason
from bridge.runtime.health import LIMIT, Health
from bridge.runtime.rest import Answer, NoAnswer

_EVERY: Final = 10.0  # seconds between two looks
_DOCUMENT: Final = "/"
_WRONG: Final[Mapping[int, Reason]] = {
    HTTPStatus.UNAUTHORIZED: Reason.UNAUTHORIZED,
    HTTPStatus.BAD_GATEWAY: Reason.UNAVAILABLE,
    HTTPStatus.SERVICE_UNAVAILABLE: Reason.UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT: Reason.UNAVAILABLE,
}

Get = Callable[[str, Mapping[str, str]], Answer | NoAnswer]
"""RestClient.get."""


class EndpointProbe:
    """The look, and its word on the endpoint's checks."""

    def __init__(self, get: Get, health: Health, checks: Sequence[str], *, every: float = _EVERY) -> None:
        self._get = get
        self._health = health
        self._checks = checks
        self._every = every
        for check in checks:
            health.ok(check, "not asked yet", good_for=LIMIT)

    def run(self, stop: threading.Event) -> None:
        """Look until `stop` is set, the first time after one interval."""
        while not stop.wait(self._every):
            self.look()

    def look(self) -> None:
        """Ask once, and say on each check what came of it."""
        wrong = _wrong(self._get(_DOCUMENT, {}))
        for check in self._checks:
            self._health.looked(check, wrong)


def _wrong(answer: Answer | NoAnswer) -> str | None:
    """Return why the endpoint cannot be used, None where its server answers."""
    if isinstance(answer, NoAnswer):
        return f"{answer.reason.text}: {answer.detail}" if answer.detail else answer.reason.text
    reason = _WRONG.get(answer.status)
    return reason.text if reason is not None else None
