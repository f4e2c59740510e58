# SPDX-License-Identifier: Apache-2.0
"""Ports for servers of a test: below those the kernel lends to outgoing connections before the server has begun."""

import random
import socket
from typing import Final

_FIRST: Final = 20_000
_LAST: Final = 32_000
_given: set[int] = set()


def steady_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port of loopback that nobody listens on, and that this process has not given out before."""
    while True:
        port = random.randrange(_FIRST, _LAST)
        if port in _given:
            continue
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
