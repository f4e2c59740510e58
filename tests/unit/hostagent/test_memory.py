# SPDX-License-Identifier: Apache-2.0
"""Memory of the agent: a hypervisor's belongs to its guests."""

import subprocess
import sys

_COSTLY = {"asyncio", "eventlet", "oslo_concurrency", "oslo_messaging", "oslo_service", "os_brick", "sqlalchemy"}
"""Modules of several MiB each that the agent's own process has no use for."""


def test_the_agent_loads_no_library_that_only_others_need() -> None:
    program = "import sys, hostagent.cmd, hostagent.wiring; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name for name in done.stdout.split() if name in _COSTLY}
    assert loaded <= {"eventlet"}  # blocked, not loaded
