# SPDX-License-Identifier: Apache-2.0
"""A check of libvirt's sockets that does not need libvirt."""

from pathlib import Path
from typing import Final

from hostagent.drivers.connects import why_not_connected

_LIBVIRT: Final = ("libvirt-sock", "virtqemud-sock")


def trouble(directory: Path, read_only: bool) -> str | None:
    """Return why libvirt cannot be reached below this directory, None where it can."""
    said = f"no socket of libvirt in {directory}: is it the host's, and mounted into the container?"
    for name in _LIBVIRT:
        path = directory / (f"{name}-ro" if read_only else name)
        if not path.exists():
            continue
        why_not = why_not_connected(str(path))
        if why_not is None:
            return None
        said = f"{path}: {why_not}"
    return said
