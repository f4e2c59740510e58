# SPDX-License-Identifier: Apache-2.0
"""Waiting for what must come: a condition looked at again and again, with a deadline and words for its failure."""

import time
from collections.abc import Callable
from typing import Final

_LOOK_EVERY: Final = 0.02


def until(condition: Callable[[], object], what: str, *, seconds: float = 30.0) -> None:
    """Return once `condition()` is true; raises AssertionError naming `what` after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(_LOOK_EVERY)
