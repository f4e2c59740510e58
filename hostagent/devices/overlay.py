# SPDX-License-Identifier: Apache-2.0
"""A volume under an overlay, such as a backup tool's external snapshot: first the device grows, then the overlay.

A commit makes the device as large as the overlay, which works only on a device that has been refreshed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hostagent.devices.base import Strategy
from hostagent.domain import Disk


@dataclass(frozen=True, slots=True)
class OverlayStrategy:
    """The strategy of the bottom device, for a disk whose overlay QEMU grows itself."""

    inner: Strategy

    @property
    def name(self) -> str:
        """The inner strategy's name and the overlay."""
        return f"{self.inner.name}, beneath an overlay"

    def takes(self, disk: Disk, connection: Mapping[str, Any] | None) -> bool:
        """Take what the inner strategy takes."""
        return self.inner.takes(disk.device, connection)

    def refresh(self, disk: Disk, connection: Mapping[str, Any] | None) -> int | None:
        """Refresh the bottom device."""
        return self.inner.refresh(disk.device, connection)

    def size(self, disk: Disk) -> int | None:
        """Return the size of the bottom device."""
        return self.inner.size(disk.device)
