# SPDX-License-Identifier: Apache-2.0
"""The socket of a played libvirtd: each call of a played connection waits for a byte of it.

So the faults of a proxy reach a played host as those of a stopped or restarted libvirtd reach a real one.
"""

import socket
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

SOCKET: Final = "libvirt-sock"
"""Name of a symbolic link in the state directory of a host agent; without it there is no socket."""
KEEPALIVE: Final = 20.0
"""Seconds after which a silent connection is given up, as libvirt's keepalive does; an open has no such limit."""
_BACKLOG: Final = 64


class PlayedLibvirtd:
    """The server: sends back each byte."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(_BACKLOG)

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="played-libvirtd", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=_serve, args=(client,), name="played-libvirtd-client", daemon=True).start()


class LibvirtWire:
    """One connection; a call at a time. Without a path every call returns at once."""

    def __init__(self, path: Path | None) -> None:
        """Connect, and wait for the first answer without an end; raises OSError."""
        self.alive = True
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        if path is None:
            return
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(str(path))
            self.call()
        except OSError:
            self.close()
            raise
        self._socket.settimeout(KEEPALIVE)

    def call(self) -> None:
        """Ask once and wait for the answer; raises OSError, and the connection is dead then."""
        if self._socket is None:
            return
        with self._lock:
            try:
                self._socket.sendall(b"?")
                if not self._socket.recv(1):
                    raise ConnectionResetError("the socket was closed")
            except OSError:
                self.alive = False
                raise

    def close(self) -> None:
        """Close the connection."""
        self.alive = False
        if self._socket is not None:
            self._socket.close()


def socket_of(state: Path) -> Path | None:
    """Return the socket in the state directory of a played host, None where it has none."""
    path = state / SOCKET
    return path.resolve() if path.is_symlink() else None  # a socket's own path must be short


def _serve(client: socket.socket) -> None:
    with client, suppress(OSError):
        while piece := client.recv(1):
            client.sendall(piece)
