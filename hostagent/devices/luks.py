# SPDX-License-Identifier: Apache-2.0
"""LUKS headers: the first bytes of a volume, which its guest does not see.

The header belongs to the host: the guest writes behind it. QEMU itself opens LUKS1, dm-crypt on the host both.
Layout of LUKS1: LUKS On-Disk Format 1.2.3, table "phdr".
"""

import os
import struct
from collections.abc import Callable
from typing import Final

from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.devices import luks2
from hostagent.domain import Disk, SourceKind
from hostagent.errors import StepFailedError
from hostagent.ports import Images

HEADER: Final = 592
_MAGIC: Final = b"LUKS\xba\xbe"
_VERSION_AT: Final = 6
_PAYLOAD_AT: Final = 104
_SECTOR: Final = 512


def payload_offset(header: bytes) -> int:
    """Return the bytes before the payload; raises ValueError for another header than LUKS1."""
    if len(header) < HEADER or not header.startswith(_MAGIC):
        raise ValueError("not a LUKS header")
    (version,) = struct.unpack_from(">H", header, _VERSION_AT)
    if version != 1:
        raise ValueError(f"LUKS version {version}; QEMU opens version 1 only")
    (sectors,) = struct.unpack_from(">I", header, _PAYLOAD_AT)
    return int(sectors) * _SECTOR


def hidden_bytes(disk: Disk, images: Images | None) -> int:
    """Return the bytes that the guest does not see; 0 unless QEMU decrypts LUKS1. Raises StepFailedError.

    LUKS1 inside of qcow2 hides nothing: the virtual size is the payload's, and the header lies beside it.
    """
    if not disk.luks or disk.driver_format == "qcow2":
        return 0
    if disk.kind is SourceKind.NETWORK and images is not None:
        return images.luks_header(disk)
    if disk.kind not in {SourceKind.BLOCK, SourceKind.FILE} or disk.source is None or disk.driver_format != "raw":
        raise StepFailedError(Outcome.UNSUPPORTED, Reason.NO_STRATEGY, f"LUKS on {disk.kind} {disk.driver_format}")
    return _explained(disk.source, lambda path: payload_offset(_read(path, HEADER)))


def header_of_map(beneath: str, kind: str) -> int:
    """Return the bytes before the payload of a dm-crypt map of this kind. Raises StepFailedError."""
    if kind == "LUKS1":
        return _explained(beneath, lambda path: payload_offset(_read(path, HEADER)))
    if kind == "LUKS2":
        return _explained(beneath, _offset_of_luks2)
    return 0  # plain: os-brick opens it without an offset


def _offset_of_luks2(path: str) -> int:
    return luks2.payload_offset(_read(path, luks2.header_size(_read(path, luks2.FIRST))))


def _explained(path: str, offset: Callable[[str], int]) -> int:
    try:
        return offset(path)
    except OSError as ex:
        raise StepFailedError(
            Outcome.DEVICE_STALE, Reason.IMAGE_UNREADABLE, f"the LUKS header of {path}: {ex.strerror}"
        ) from ex
    except ValueError as ex:
        raise StepFailedError(Outcome.UNSUPPORTED, Reason.NO_STRATEGY, f"{path}: {ex}") from ex


def _read(path: str, size: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return os.pread(descriptor, size, 0)
    finally:
        os.close(descriptor)
