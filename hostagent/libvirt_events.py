# SPDX-License-Identifier: Apache-2.0
"""Libvirt's event loop: registered before the first open (qemu:///embed insists), one per process."""

import logging
import threading
from typing import Any

import libvirt

LOG = logging.getLogger(__name__)
_lock = threading.Lock()
_running = False


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


def _ignore(_context: Any, _error: Any) -> None:
    """Errors reach us as exceptions."""


def _turn() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError as ex:
            LOG.warning("libvirt's event loop: %s", ex)
