# SPDX-License-Identifier: Apache-2.0
"""A clock for the product's `clock` arguments."""


class PlayedClock:
    """A clock that stands until a test sets `now`, in seconds."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
