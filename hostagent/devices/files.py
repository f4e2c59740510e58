# SPDX-License-Identifier: Apache-2.0
"""Files, local or on a share: there is no device to refresh, QEMU grows the file when the guest's disk is resized.

As Nova does it (libvirt/volume/nfs.py: extend_volume returns the requested size). The format is the one the
domain's XML names; it is never probed, since a guest can write any header into a raw file.
"""

from collections.abc import Mapping
from typing import Any

from hostagent.domain import Disk, SourceKind

_FORMATS = frozenset({"raw", "qcow2"})


class FileStrategy:
    """Raw and qcow2 files."""

    name = "file"

    def takes(self, disk: Disk, connection: Mapping[str, Any] | None) -> bool:
        """Files QEMU can grow. With QEMU's own encryption the payload is smaller than the file: not here."""
        del connection
        return disk.kind is SourceKind.FILE and disk.driver_format in _FORMATS and not disk.encrypted

    def refresh(self, disk: Disk, connection: Mapping[str, Any] | None) -> None:
        """See Strategy: nothing to refresh."""

    def size(self, disk: Disk) -> None:
        """See Strategy: no device."""
