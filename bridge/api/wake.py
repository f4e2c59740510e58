# SPDX-License-Identifier: Apache-2.0
"""Tells the engine that there is work: one datagram after a commit. It may be lost; the engine polls as well."""

import logging
import socket
from collections.abc import Callable
from typing import Final

LOG = logging.getLogger(__name__)

DATAGRAM: Final = b"extend-bridge: work"


def waker(host: str, port: int) -> Callable[[], None]:
    """A function that sends the datagram and never raises nor waits; with port 0 it does nothing."""
    if port == 0:
        return _nobody
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    except OSError as ex:
        LOG.warning("[api] wake_host %s cannot be resolved; the engine finds work by its own poll: %s", host, ex)
        return _nobody
    sock = socket.socket(family, kind, protocol)
    sock.setblocking(False)

    def wake() -> None:
        try:
            sock.sendto(DATAGRAM, address)
        except OSError as ex:
            LOG.debug("the engine was not woken: %s", ex)

    return wake


def _nobody() -> None:
    return None
