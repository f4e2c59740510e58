# SPDX-License-Identifier: Apache-2.0
"""Block devices that an os-brick connector extends, given the attachment's connection data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hostagent.devices import sysfs
from hostagent.devices.blocks import block_device_size, is_plain_block
from hostagent.devices.connection import properties, volume_type
from hostagent.domain import Disk
from hostagent.ports import Brick


class ConnectedStrategy:
    """One family of connectors. `protocols`: driver_volume_type to os-brick's name of the connector.

    What os-brick returns is not taken for the size: it often is whatever is there. The device the domain has open
    is read afterwards.
    """

    def __init__(self, brick: Brick, name: str, protocols: Mapping[str, str], sys: Path = sysfs.SYS) -> None:
        self.name = name
        self._brick = brick
        self._protocols = protocols
        self._sys = sys

    def takes(self, disk: Disk, connection: Mapping[str, Any] | None) -> bool:
        """See Strategy."""
        return volume_type(connection) in self._protocols and is_plain_block(disk)

    def refresh(self, disk: Disk, connection: Mapping[str, Any] | None) -> int:
        """See Strategy."""
        self._extend(self._protocols[volume_type(connection) or ""], disk, self._prepare(properties(connection)))
        return self.size(disk)

    def size(self, disk: Disk) -> int:
        """See Strategy."""
        return block_device_size(disk.source or "", self._sys)

    def _prepare(self, data: dict[str, Any]) -> dict[str, Any]:
        """What the connector trips over, mended."""
        return data

    def _extend(self, protocol: str, disk: Disk, data: Mapping[str, Any]) -> None:
        del disk
        self._brick.extend(protocol, data)
