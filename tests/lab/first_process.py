# SPDX-License-Identifier: Apache-2.0
"""A tool as the first process of a container, where it has to collect the orphans. Standard library only."""

import os
import signal
from typing import Final

_FIRST: Final = 1


def stay_first() -> None:
    """Go on in a child where this process is the first one; do nothing anywhere else.

    A process whose parent has ended becomes a child of the first process, and stays as a zombie until that collects
    it. libvirt takes such a QEMU for one that does not end, and waits up to 40 seconds for each.
    """
    if os.getpid() != _FIRST:
        return
    child = os.fork()
    if child == 0:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the child as well
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: os.kill(child, received))
    os._exit(_collect_until(child))


def _collect_until(child: int) -> int:
    """Collect every process that ends; return the child's exit code once it is among them."""
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
