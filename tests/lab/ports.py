# SPDX-License-Identifier: Apache-2.0
"""Ports for servers of a test: below those the kernel lends to outgoing connections before the server has begun."""

import os
import random
import socket
from typing import Final

_FIRST: Final = 20_000
_LAST: Final = 32_000
_WORKERS: Final = 4
"""Parts of the range: tests that run in several processes at once take their ports from different parts."""
PORTS: Final = "EXTEND_BRIDGE_PORTS"
"""The environment variable that tells apart runs of tests side by side, each of up to two processes: 1, 2."""
_given: set[int] = set()


def steady_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port of loopback that nobody listens on, and that this process has not given out before."""
    while True:
        port = random.randrange(_FIRST, _LAST) // _WORKERS * _WORKERS + _worker() % _WORKERS
        if port in _given:
            continue
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port


def _worker() -> int:
    """Return the number of this process among those that run tests side by side."""
    lane = int(os.environ.get(PORTS, "1")) - 1
    return 2 * lane + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
