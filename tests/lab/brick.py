# SPDX-License-Identifier: Apache-2.0
"""An os-brick process before its first call, for tests that look at it."""

from hostagent.brick.pool import BrickPool


def start_process(pool: BrickPool) -> int:
    """Have one process run; return its pid."""
    process = pool._free.get()
    pool._free.put(process or pool._start())
    [pid] = pool.pids()
    return pid
