# SPDX-License-Identifier: Apache-2.0
"""Limits on the agent's memory, because a hypervisor's memory belongs to its guests. Only for glibc."""

import ctypes
import gc
from contextlib import suppress
from typing import Final

_M_ARENA_MAX: Final = -8  # malloc.h


def share_one_heap() -> None:
    """Have all threads share one heap: by default each gets its own and keeps what is free in it."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def give_back_free_memory() -> None:
    """Return free memory to the system; the agent holds much for a moment while it starts and lists its guests."""
    gc.collect()  # a look leaves 1 MiB in cycles of objects, which Python would let grow to ten looks
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
