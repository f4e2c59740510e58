# SPDX-License-Identifier: Apache-2.0
"""Is the disk the device it should be? Paths are reused: a name alone proves nothing."""

import os
import stat
from collections.abc import Mapping
from typing import Any

from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.domain import Disk, SourceKind
from hostagent.failure import StoppedError


def check_identity(disk: Disk, connection: Mapping[str, Any] | None) -> None:
    """Raise StoppedError (`refused`) where a block disk's source is not the device the connection data names.

    Only what both sides name can be compared: connection data without a device_path of this host says nothing. An
    RBD image is compared by its name.
    """
    data = connection.get("data") if connection is not None else None
    named = data.get("device_path") if isinstance(data, Mapping) else None
    image = data.get("name") if isinstance(data, Mapping) else None
    if disk.kind is SourceKind.NETWORK and isinstance(image, str) and image != disk.source:
        raise StoppedError(
            Outcome.REFUSED, Reason.WRONG_DEVICE, f"the domain has {disk.source}, the connection {image}"
        )
    if disk.kind is not SourceKind.BLOCK or disk.source is None:
        return
    ours = _device(disk.source)
    if ours is None:
        raise StoppedError(Outcome.REFUSED, Reason.WRONG_DEVICE, f"{disk.source} is no block device")
    theirs = _device(named) if isinstance(named, str) and named.startswith("/dev/") else None
    if theirs is not None and theirs != ours:
        raise StoppedError(
            Outcome.REFUSED, Reason.WRONG_DEVICE, f"the domain has {disk.source}, the connection {named}"
        )


def _device(path: str) -> int | None:
    """The device number behind a path, links followed; None where there is no block device."""
    try:
        status = os.stat(path)  # noqa: PTH116 - st_rdev
    except OSError:
        return None
    return status.st_rdev if stat.S_ISBLK(status.st_mode) else None
