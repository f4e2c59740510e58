# SPDX-License-Identifier: Apache-2.0
"""Protocol of a strategy, and readers of an order's connection data ({driver_volume_type, data}). Pure."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Protocol

from hostagent.domain import Disk


def volume_type(connection: Mapping[str, Any] | None) -> str | None:
    """Return driver_volume_type in lower case, as in Nova's driver table; None without connection data."""
    kind = connection.get("driver_volume_type") if connection is not None else None
    return kind.lower() if isinstance(kind, str) and kind else None


def properties(connection: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the `data` for os-brick: a copy for each call, because connectors write into it."""
    data = connection.get("data") if connection is not None else None
    return deepcopy(dict(data)) if isinstance(data, Mapping) else {}


class Strategy(Protocol):
    """A way to extend one kind of volume. Stateless; used by several threads."""

    @property
    def name(self) -> str:
        """The name that reports and logs show."""

    def takes(self, disk: Disk, connection: Mapping[str, Any] | None) -> bool:
        """Return whether this strategy extends the disk; `connection`: its connection data, None without any."""

    def refresh(self, disk: Disk, connection: Mapping[str, Any] | None) -> int | None:
        """Rescan the volume on this host; return the host device's size in bytes afterwards.

        None: the host has no device of it, and QEMU makes the volume larger itself. Safe to repeat. Raises
        StepFailedError.
        """

    def size(self, disk: Disk) -> int | None:
        """Return the same size now, cheaply and without touching the storage. Raises StepFailedError."""
