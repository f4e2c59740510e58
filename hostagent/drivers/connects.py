# SPDX-License-Identifier: Apache-2.0
"""One attempt to connect to a Unix socket of this host."""

import socket


def why_not_connected(address: str) -> str | None:
    """Return why no connection can be made to this address; None where one can."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(5)
        try:
            probe.connect(address)
        except OSError as ex:
            return ex.strerror or type(ex).__name__
    return None
