# SPDX-License-Identifier: Apache-2.0
"""The beginning of a LUKS2 volume's payload. Layout: LUKS2 On-Disk Format 1.1.1, "binary header" and "segments".

The checksum is compared as well: half a header must not become a size.
"""

import hashlib
import json
import re
import struct
from collections.abc import Mapping
from typing import Any, Final

SIZES: Final = frozenset(1 << power for power in range(14, 23))  # 16 KiB to 4 MiB: all that cryptsetup writes
FIRST: Final = 4096  # bytes of the binary header, the JSON area behind it
OFFSET_MAX: Final = 1 << 40
"""Bytes before a payload, at most; cryptsetup writes 16 MiB."""
_OFFSET: Final = re.compile(r"[0-9]{1,13}")
_MAGIC: Final = b"LUKS\xba\xbe"
_SIZE_AT: Final = 8
_ALGORITHM_AT: Final = slice(72, 104)
_ALGORITHMS: Final = frozenset({"sha1", "sha224", "sha256", "sha384", "sha512"})
_SUM_AT: Final = slice(448, 512)


def header_size(binary: bytes) -> int:
    """Return the size of the whole header by its first FIRST bytes; raises ValueError."""
    if len(binary) < FIRST or not binary.startswith(_MAGIC):
        raise ValueError("not a LUKS header")
    version, size = struct.unpack_from(">HQ", binary, len(_MAGIC))
    if version != 2 or size not in SIZES:  # noqa: PLR2004
        raise ValueError(f"LUKS version {version} with a header of {size} bytes")
    return int(size)


def payload_offset(header: bytes) -> int:
    """Return the bytes before the payload, by the whole header; raises ValueError."""
    algorithm = header[_ALGORITHM_AT].rstrip(b"\0").decode(errors="replace")
    if algorithm not in _ALGORITHMS:
        raise ValueError("a LUKS2 header with an unknown checksum")
    checksum = hashlib.new(algorithm, usedforsecurity=False)
    checksum.update(header[: _SUM_AT.start] + bytes(_SUM_AT.stop - _SUM_AT.start) + header[_SUM_AT.stop :])
    if checksum.digest() != header[_SUM_AT][: checksum.digest_size]:
        raise ValueError("a LUKS2 header whose checksum is wrong")
    try:
        return _only_segment(json.loads(header[FIRST:].split(b"\0", 1)[0]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as ex:
        raise ValueError("a LUKS2 volume that is not one segment to its end: is it being reencrypted?") from ex


def _only_segment(area: Mapping[str, Any]) -> int:
    [segment] = area["segments"].values()
    if segment["type"] != "crypt" or segment["size"] != "dynamic":
        raise ValueError
    offset = segment["offset"]
    if not isinstance(offset, str) or not _OFFSET.fullmatch(offset) or int(offset) > OFFSET_MAX:
        raise ValueError
    return int(offset)
