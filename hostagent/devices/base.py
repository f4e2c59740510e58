# SPDX-License-Identifier: Apache-2.0
"""What a strategy is."""

from collections.abc import Mapping
from typing import Any, Protocol

from hostagent.domain import Disk


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
