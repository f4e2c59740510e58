# SPDX-License-Identifier: Apache-2.0
"""The size of a file or block device of this host, read within the limit of storage reads."""

import os

from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.errors import StepFailedError
from hostagent.storage_reads import StorageReads, StorageSilentError


def length_of(reads: StorageReads, path: str) -> int:
    """Return the bytes of a file or block device now. Raises StepFailedError."""
    try:
        return reads.read(path, lambda: _length(path))
    except StorageSilentError as ex:
        raise StepFailedError(Outcome.DEVICE_STALE, Reason.STORAGE_SILENT, str(ex)) from ex
    except OSError as ex:
        raise StepFailedError(Outcome.DEVICE_STALE, Reason.IMAGE_UNREADABLE, f"{path}: {ex.strerror}") from ex


def _length(path: str) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        return os.lseek(descriptor, 0, os.SEEK_END)
    finally:
        os.close(descriptor)
