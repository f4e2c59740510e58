# SPDX-License-Identifier: Apache-2.0
"""A chunked body, read strictly and never more of it than was asked for: cheroot reads any chunk whole."""

import re
from typing import Final, Protocol

_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r\n")
_LINE: Final = 1024  # bytes of a size with its extensions, and of a trailer
_TRAILERS: Final = 32


class Readable(Protocol):
    """What stands behind: the connection."""

    def read(self, size: int, /) -> bytes: ...
    def readline(self, size: int, /) -> bytes: ...


class ChunkedBody:
    """The `wsgi.input` of a chunked request. Raises ValueError where the chunking is broken or breaks off."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._left = 0  # of the chunk that was begun
        self._begun = False
        self._ended = False

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, all that come where it is negative; fewer only at the end."""
        parts: list[bytes] = []
        wanted = size
        while wanted != 0 and self._more():
            part = self._source.read(self._left if wanted < 0 else min(wanted, self._left))
            if not part:
                raise ValueError("the body broke off")
            parts.append(part)
            self._left -= len(part)
            wanted -= len(part) if wanted > 0 else 0
        return b"".join(parts)

    def _more(self) -> bool:
        """Whether a byte of the body is to come; goes to the next chunk where one ended."""
        if self._left == 0 and not self._ended:
            if self._begun and self._source.readline(2) != b"\r\n":
                raise ValueError("a chunk is longer than it says")
            match = _SIZE.fullmatch(self._source.readline(_LINE))
            if match is None:
                raise ValueError("the size of a chunk is malformed")
            self._begun, self._left = True, int(match[1], 16)
            if self._left == 0:
                self._ended = True
                self._trailers()
        return self._left > 0

    def _trailers(self) -> None:
        for _ in range(_TRAILERS):
            line = self._source.readline(_LINE)
            if line == b"\r\n":
                return
            if not line.endswith(b"\r\n"):
                break
        raise ValueError("the end of the chunks is malformed")
