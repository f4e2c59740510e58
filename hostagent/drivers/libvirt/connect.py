# SPDX-License-Identifier: Apache-2.0
"""Opening libvirt: its event loop before the first connection, and what qemu:///embed wants besides.

embed is libvirt inside this process. It accepts a connection only after an event loop is registered. Each open
registers its drivers again, in a table that is full after about twenty. So an embedded libvirt gets one shared
connection per process. Sharing costs nothing, because there is no network connection below it.
"""

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import libvirt

LOG = logging.getLogger(__name__)
_EMBED = "/embed"
_KEEPALIVE = (5, 3)  # seconds, count: a libvirtd that is gone without a word is noticed in 20 s

_lock = threading.Lock()
_running = False
_embedded: dict[str, Any] = {}


def run_events() -> None:
    """Register the default loop and turn it in a thread; calling it again changes nothing.

    The thread lives as long as the process: libvirt knows no way to unregister a loop.
    """
    global _running  # noqa: PLW0603 - libvirt has one loop per process
    with _lock:
        if _running:
            return
        libvirt.registerErrorHandler(_ignore, None)  # else each error is also printed to standard error
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=_turn, name="libvirt-events", daemon=True).start()
        _running = True


def open_libvirt(uri: str) -> Any:
    """Return a virConnect. Raises libvirt.libvirtError."""
    run_events()
    return _open(uri, libvirt.open)


def open_read_only(uri: str) -> Any:
    """Return a virConnect on which libvirt refuses each call that changes something. Raises libvirtError."""
    run_events()
    return _open(uri, libvirt.openReadOnly)


def _open(uri: str, how: Callable[[str], Any]) -> Any:
    if not urlsplit(uri).path.startswith(_EMBED):
        connection = how(uri)
        with suppress(libvirt.libvirtError):
            connection.setKeepAlive(*_KEEPALIVE)
        return connection
    with _lock:
        kept = f"{how.__name__} {uri}"
        if kept not in _embedded:
            _embedded[kept] = how(uri)
        return _embedded[kept]


def close_libvirt(connection: Any) -> None:
    """Close a connection. A shared one stays open."""
    if any(connection is kept for kept in _embedded.values()):
        return
    with suppress(libvirt.libvirtError):
        connection.close()


def _ignore(_context: Any, _error: Any) -> None:
    """Ignore an error message: errors are raised as exceptions."""


def _turn() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError as ex:
            LOG.warning("libvirt's event loop: %s", ex)
