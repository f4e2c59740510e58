# SPDX-License-Identifier: Apache-2.0
"""RBD: no device of this host. Cinder has grown the image in Ceph, and QEMU's client has yet to be told.

QEMU would resize the image itself, up or down, to whatever it is told. So the image's true size is read first, and
this strategy only ever waits for it: it makes no image larger (hostagent/resize.py has the guard).
"""

from collections.abc import Mapping
from typing import Any

from hostagent.devices.connection import volume_type
from hostagent.domain import Disk, SourceKind
from hostagent.ports import Images


class RbdStrategy:
    """Raw RBD images."""

    name = "rbd"

    def __init__(self, images: Images) -> None:
        self._images = images

    def takes(self, disk: Disk, connection: Mapping[str, Any] | None) -> bool:
        """See Strategy. The domain itself says how its image is reached."""
        return (
            disk.kind is SourceKind.NETWORK
            and disk.network is not None
            and disk.network.protocol == "rbd"
            and disk.driver_format == "raw"
            and not disk.encrypted
            and volume_type(connection) in {None, "rbd"}
        )

    def refresh(self, disk: Disk, connection: Mapping[str, Any] | None) -> int:
        """See Strategy: there is nothing to nudge."""
        del connection
        return self.size(disk)

    def size(self, disk: Disk) -> int:
        """See Strategy: what Ceph says."""
        return self._images.reader(disk)()
