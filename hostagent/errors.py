# SPDX-License-Identifier: Apache-2.0
"""Errors that end the work on an order: the outcome it gets, the reason, and a line for a person."""

from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason

_DETAIL_MAX = 300


class StepFailedError(Exception):
    """The work on an order ends here. `detail` is one line of at most 300 characters and holds no secret."""

    def __init__(self, outcome: Outcome, reason: Reason, detail: str = "") -> None:
        self.outcome = outcome
        self.reason = reason
        self.detail = " ".join(detail.split())[:_DETAIL_MAX]
        super().__init__(f"{outcome}: {reason.text}{f' ({self.detail})' if self.detail else ''}")


class NotAskedError(StepFailedError):
    """The call was not made at all: others like it have not returned."""
