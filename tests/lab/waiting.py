# SPDX-License-Identifier: Apache-2.0
"""Waits for events: a condition is looked at again and again until it is true.

The limit is for what never comes. It is so long that no machine is too slow for it, and a test that passes never
waits for it. For trying a broken program EXTEND_BRIDGE_LONGEST sets a shorter limit, in seconds.
"""

import os
import time
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")
LONGEST: Final = float(os.environ.get("EXTEND_BRIDGE_LONGEST", "300"))
"""Seconds after which what was waited for is taken to never come."""
_LOOK_EVERY: Final = 0.02


def until(
    condition: Callable[[], T],
    what: str | Callable[[], str],
    *,
    seconds: float | None = None,
    every: float = _LOOK_EVERY,
) -> T:
    """Return the first true value of `condition()`; raises AssertionError naming `what` when it never comes.

    `seconds` is for a wait that is longer than LONGEST by its nature, or for a condition that must not come.
    `every`: seconds between two looks, where a look is dear.
    """
    limit = LONGEST if seconds is None else seconds
    deadline = time.monotonic() + limit
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(every)
    return value
