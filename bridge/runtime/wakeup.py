# SPDX-License-Identifier: Apache-2.0
"""Wake-ups of the engine: one datagram after a commit. A datagram may be lost, because the engine polls as well.

The API sends the datagram; the engine waits for it, at most one second.
"""

import contextlib
import logging
import select
import socket
from collections.abc import Callable
from typing import Final

from bridge.core.errors import ConfigError


class Wake:
    """A UDP socket; several engines of one machine may share the port, each datagram wakes one of them."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._socket.setblocking(False)
        try:
            self._socket.bind(address)
        except OSError as ex:
            self._socket.close()
            raise ConfigError(
                f"[engine] wake_host, wake_port {address[0]}:{address[1]} cannot be used: {ex}"
            ) from ex

    def wait(self, seconds: float) -> bool:
        """Wait for a datagram; return True if one came in time. Takes all datagrams that wait."""
        if not select.select([self._socket], [], [], seconds)[0]:
            return False
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv(16)
        return True

    def close(self) -> None:
        """Close the socket, which frees the port."""
        self._socket.close()

    @property
    def address(self) -> tuple[str, int]:
        """The address that takes datagrams, with the actual port if a free port was picked."""
        host, port = self._socket.getsockname()[:2]
        return str(host), int(port)


LOG = logging.getLogger(__name__)

DATAGRAM: Final = b"extend-bridge: work"


def waker(host: str, port: int) -> Callable[[], None]:
    """Return a function that sends the datagram and never raises or waits; with port 0 it does nothing."""
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
            LOG.debug("the wake-up datagram to the engine could not be sent: %s", ex)

    return wake


def _nobody() -> None:
    return None
