# SPDX-License-Identifier: Apache-2.0
"""Bodies that Cinder's [oslo_messaging_rabbit] kombu_compression made smaller, never larger than they may be."""

import bz2
import zlib
from collections.abc import Callable, Mapping
from typing import Final

_ANY_HEADER: Final = zlib.MAX_WBITS | 32  # zlib's, as kombu's "gzip" is, or gzip's own

_WAYS: Final[Mapping[object, Callable[[bytes, int], bytes]]] = {
    "application/x-gzip": lambda body, limit: zlib.decompressobj(_ANY_HEADER).decompress(body, limit),
    "application/x-bz2": lambda body, limit: bz2.BZ2Decompressor().decompress(body, limit),
}
"""What oslo.messaging can do, by kombu's names."""


def inflated(body: bytes, way: object, max_bytes: int) -> bytes | None:
    """The body by what its header says, at most one byte more than `max_bytes`; None where that is impossible.

    A body that ends too early is as long as it is: what is read of it then is no JSON.
    """
    inflate = _WAYS.get(way) if isinstance(way, str) else None
    if inflate is None:
        return None
    try:
        return inflate(body, max_bytes + 1)
    except (ValueError, OSError, EOFError, zlib.error):
        return None
