# SPDX-License-Identifier: Apache-2.0
"""Block devices of this host, known by the path the domain uses: os-brick's LOCAL connector."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.devices import sysfs
from hostagent.devices.connection import volume_type
from hostagent.domain import Disk, SourceKind
from hostagent.failure import StoppedError
from hostagent.ports import Brick

_SYSFS_UNIT = 512  # /sys/dev/block/*/size counts these, whatever the device's own sector size


class LocalStrategy:
    """Reads the device the domain has open. It does not rescan: LVM's and the like grow by themselves."""

    name = "block"

    def __init__(self, brick: Brick) -> None:
        self._brick = brick

    def takes(self, disk: Disk, connection: Mapping[str, Any] | None) -> bool:
        """Plain block devices that nobody calls something else; a type without a strategy is none of them."""
        return volume_type(connection) in {None, "local"} and is_plain_block(disk)

    def refresh(self, disk: Disk, connection: Mapping[str, Any] | None) -> int:
        """See Strategy. The device's own word counts, not os-brick's: that is what QEMU will find."""
        del connection
        self._brick.extend("LOCAL", {"device_path": disk.source})
        return self.size(disk)

    def size(self, disk: Disk) -> int:
        """See Strategy."""
        return block_device_size(disk.source or "")


def is_plain_block(disk: Disk) -> bool:
    """A raw block device without encryption.

    QEMU's own encryption needs the payload offset, which no strategy knows; a dm-crypt map stays as large as it is
    until somebody with its key resizes it.
    """
    if disk.kind is not SourceKind.BLOCK or disk.source is None or disk.driver_format != "raw" or disk.encrypted:
        return False
    number = sysfs.device_number(disk.source)
    return number is None or not sysfs.is_crypt(number)


def block_device_size(path: str) -> int:
    """Size in bytes of a block device by sysfs, which needs no open and no root. Raises StoppedError."""
    try:
        device = os.stat(path).st_rdev  # noqa: PTH116 - as everywhere where st_rdev is wanted
        size = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/size").read_text()
        return int(size) * _SYSFS_UNIT
    except (OSError, ValueError) as ex:
        raise StoppedError(
            Outcome.DEVICE_STALE, Reason.DEVICE_SMALLER, f"{path} cannot be read: {type(ex).__name__}"
        ) from ex
