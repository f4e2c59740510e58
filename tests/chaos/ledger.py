# SPDX-License-Identifier: Apache-2.0
"""The disks of a host as its storage has them: a file that is only ever added to, so that nothing is forgotten.

One line per size a disk ever got. The last line of a disk is its size now, and one that is smaller than a line
before it is a shrink, whoever does it and whatever becomes of the disk later. A line is one write(2): it is there
or it is not, also when the writer is killed.
"""

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DiskId = tuple[str, str]
"""Server, volume: a volume that is attached twice is two disks."""


@dataclass(slots=True)
class Disk:
    """Sizes in bytes; `largest` it ever had; `shrunk`: how often it became smaller."""

    size: int
    largest: int
    shrunk: int = 0
    changes: int = 0


class Ledger:
    """One host's file, read as it grows. For several threads; one process writes, any number read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._disks: dict[DiskId, Disk] = {}
        self._read_to = 0

    def touch(self) -> None:
        """Have the file, also of a host without a disk."""
        self._path.touch()

    def put(self, disk: DiskId, size: int) -> None:
        """The disk has this size from now on."""
        line = f"{disk[0]} {disk[1]} {size}\n".encode()
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, line)
        finally:
            os.close(handle)

    def size(self, disk: DiskId) -> int:
        """Its size now; raises KeyError."""
        with self._lock:
            self._read()
            return self._disks[disk].size

    def disks(self) -> Mapping[DiskId, Disk]:
        """All disks now."""
        with self._lock:
            self._read()
            return dict(self._disks)

    def _read(self) -> None:
        with self._path.open("rb") as file:
            file.seek(self._read_to)
            text = file.read()
        whole = text.rfind(b"\n") + 1
        self._read_to += whole
        for line in text[:whole].decode("ascii").splitlines():
            server_id, volume_id, size = line.split()
            self._take((server_id, volume_id), int(size))

    def _take(self, disk: DiskId, size: int) -> None:
        known = self._disks.get(disk)
        if known is None:
            self._disks[disk] = Disk(size=size, largest=size)
            return
        known.changes += 1
        known.shrunk += size < known.largest
        known.size, known.largest = size, max(known.largest, size)
