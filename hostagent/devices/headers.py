# SPDX-License-Identifier: Apache-2.0
"""Headers of volumes, which their guests do not see. Each is read within a time limit, and only once."""

import threading
from pathlib import Path
from typing import Final

from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.devices import crypt, sysfs
from hostagent.domain import Disk, SourceKind
from hostagent.errors import StepFailedError
from hostagent.ports import Images
from hostagent.storage_reads import StorageReads, StorageSilentError

_KEPT_MAX: Final = 10_000
_Key = tuple[str | None, str | None, str | None]


class LuksHeaders:
    """The headers of this host's disks; for several threads.

    A header does not change while its volume is attached, and storage that hangs later must not matter. The
    mark of the attach is part of the key, so a volume that is attached anew is read anew.
    """

    def __init__(self, reads: StorageReads, root: Path = sysfs.SYS) -> None:
        self._reads = reads
        self._root = root
        self._lock = threading.Lock()
        self._known: dict[_Key, int] = {}

    def hidden_bytes(self, disk: Disk, images: Images | None) -> int:
        """Return the bytes that the guest does not see, whichever layer decrypts. Raises StepFailedError."""
        if not disk.luks and disk.kind is not SourceKind.BLOCK:
            return 0
        key = (disk.volume_id, disk.source, disk.node)
        with self._lock:
            if (known := self._known.get(key)) is not None:
                return known
        hidden = self._read(disk, images)
        if hidden:
            with self._lock:
                if len(self._known) >= _KEPT_MAX:
                    self._known.clear()
                self._known[key] = hidden
        return hidden

    def _read(self, disk: Disk, images: Images | None) -> int:
        if disk.kind is SourceKind.NETWORK:
            return crypt.hidden_bytes(disk, images, self._root)  # by qemu-img, which has a limit of its own
        try:
            return self._reads.read(disk.source or "", lambda: crypt.hidden_bytes(disk, images, self._root))
        except StorageSilentError as ex:
            raise StepFailedError(Outcome.DEVICE_STALE, Reason.STORAGE_SILENT, str(ex)) from ex
