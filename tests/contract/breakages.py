# SPDX-License-Identifier: Apache-2.0
"""A pytest plugin that breaks a promise of one of our own drivers, as a hurried change could."""

import os
from collections.abc import Callable

BREAK = "EXTEND_BRIDGE_CONTRACT_BREAK"


def _libvirt_in_kib() -> None:
    """Leave out the flag by which libvirt reads a size as bytes."""
    from hostagent.drivers.libvirt import guest  # noqa: PLC0415 - only the driver that is broken is loaded

    def resize_flags(version: int) -> int:
        del version
        return 0

    guest.resize_flags = resize_flags


def _qmp_rounds() -> None:
    """Resize to whole MiB."""
    from hostagent.drivers.qmp.guest import QmpGuest  # noqa: PLC0415

    resize = QmpGuest.resize
    QmpGuest.resize = lambda self, disk, size: resize(self, disk, size >> 20 << 20)  # type: ignore[method-assign]


BREAKS: dict[str, Callable[[], None]] = {"libvirt": _libvirt_in_kib, "qmp": _qmp_rounds}


def pytest_configure() -> None:
    """Break it before the first test."""
    BREAKS[os.environ[BREAK]]()
