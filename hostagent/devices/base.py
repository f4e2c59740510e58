# SPDX-License-Identifier: Apache-2.0
"""What a strategy is.

Reading an order's connection data, {driver_volume_type, data}. Pure.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Protocol

from hostagent.domain import Disk


def volume_type(connection: Mapping[str, Any] | None) -> str | None:
    """driver_volume_type in lower case, as Nova's driver table has it; None where there is no connection data."""
    kind = connection.get("driver_volume_type") if connection is not None else None
    return kind.lower() if isinstance(kind, str) and kind else None


def properties(connection: Mapping[str, Any] | None) -> dict[str, Any]:
    """The `data` for os-brick: a copy of its own for every call, since connectors write into it."""
    data = connection.get("data") if connection is not None else None
    return deepcopy(dict(data)) if isinstance(data, Mapping) else {}


class Strategy(Protocol):
    """One kind of volume. Stateless; used by several threads."""

    @property
    def name(self) -> str:
        """What the inventory reports as a capability."""

    def takes(self, disk: Disk, connection: Mapping[str, Any] | None) -> bool:
        """Whether this strategy knows how to extend the disk, connected in this way (None: nobody says how)."""

    def refresh(self, disk: Disk, connection: Mapping[str, Any] | None) -> int | None:
        """Have the host look at the volume again; the host device's size in bytes afterwards.

        None: the host has no device of it, QEMU makes the volume larger itself. May be called again and again.
        Raises StoppedError.
        """

    def size(self, disk: Disk) -> int | None:
        """The same size now, cheaply and without touching the storage. Raises StoppedError."""
