# SPDX-License-Identifier: Apache-2.0
"""Ports for servers of a test: below those the kernel lends to outgoing connections before the server has begun.

A port that is given out is kept by the name of an abstract socket, so that no other test process of this machine
takes it: neither another worker, nor another stage, nor another run.
"""

import random
import socket
from typing import Final

_FIRST: Final = 20_000
_LAST: Final = 32_000
_kept: dict[int, socket.socket] = {}


def steady_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port of loopback that nobody listens on, and that no living test process has been given before."""
    while True:
        port = random.randrange(_FIRST, _LAST)
        if (kept := _keep(port)) is None:
            continue
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                kept.close()
                continue
        _kept[port] = kept
        return port


def _keep(port: int) -> socket.socket | None:
    """Keep a port for this process; None when a process has it."""
    name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        name.bind(f"\0extend-bridge-test-port-{port}")
    except OSError:
        name.close()
        return None
    return name
