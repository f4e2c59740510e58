# SPDX-License-Identifier: Apache-2.0
"""Block devices of this host, known by the path the domain uses and by what sysfs says of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hostagent.devices import sysfs
from hostagent.devices.blocks import block_device_size, check_paths_up, explained, is_plain_block, same_volume
from hostagent.devices.connection import volume_type
from hostagent.domain import Disk
from hostagent.ports import Brick, Nudge


class LocalStrategy:
    """Without connection data: rescans the SCSI disk, the NVMe namespace or each path of the map, then the map.

    What is none of these (LVM, a loop device) grows by itself and is only read, by os-brick's LOCAL connector.
    """

    name = "block"

    def __init__(self, brick: Brick, sys: Path = sysfs.SYS) -> None:
        self._brick = brick
        self._sys = sys

    def takes(self, disk: Disk, connection: Mapping[str, Any] | None) -> bool:
        """Plain block devices that nobody calls something else; a type without a strategy is none of them."""
        return volume_type(connection) in {None, "local"} and is_plain_block(disk)

    def refresh(self, disk: Disk, connection: Mapping[str, Any] | None) -> int:
        """See Strategy. The device's own word counts, not os-brick's: that is what QEMU will find."""
        number = sysfs.device_number(disk.source or "")
        nudge = sysfs.nudge(number, self._sys) if number is not None and connection is None else Nudge()
        if nudge == Nudge():
            self._brick.extend("LOCAL", {"device_path": disk.source})
        else:
            check_paths_up(disk, self._sys)
            with same_volume(disk, self._sys), explained(disk, self._sys):
                self._brick.rescan(nudge)
        return self.size(disk)

    def size(self, disk: Disk) -> int:
        """See Strategy."""
        return block_device_size(disk.source or "", self._sys)
