# SPDX-License-Identifier: Apache-2.0
"""The wake-up may be lost; it may not hurt."""

import socket

from bridge.runtime.wakeup import waker


def test_a_datagram_reaches_who_listens() -> None:
    """One per call."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind(("127.0.0.1", 0))
        ear.settimeout(5)
        wake = waker("127.0.0.1", ear.getsockname()[1])
        wake()
        assert ear.recv(64)


def test_nobody_listening_and_no_such_name_are_no_error() -> None:
    """The engine polls."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind(("127.0.0.1", 0))
        port = ear.getsockname()[1]
    for wake in (waker("127.0.0.1", port), waker("no-such-host.invalid", 9786), waker("127.0.0.1", 0)):
        wake()
        wake()
