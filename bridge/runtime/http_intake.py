# SPDX-License-Identifier: Apache-2.0
"""Where a request ends, told from its bytes as they come, within limits: no worker thread waits for a slow sender.

The reading of the request stays cheroot's; here only its end is looked for. What comes behind that end is never
read as a second request (the connection is closed instead), so that two readings of one request cannot be played
off against each other.
"""

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

_HEAD_END: Final = b"\r\n\r\n"
_SIZE: Final = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(;[^\r\n]*)?")
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")
_MAX_CHUNK_LINE: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bytes. A body above `body` is not kept; up to `swallow` it is read away first, so that its sender hears."""

    head: int = 64 * 1024
    body: int = 256 * 1024
    swallow: int = 1024 * 1024


class _State(Enum):
    HEAD = auto()  # the blank line behind the headers has not come
    BODY = auto()  # so many bytes are to come
    CHUNKS = auto()  # until the chunk of size 0 and its trailers
    SWALLOW = auto()  # so many bytes are to come, and to be thrown away
    WHOLE = auto()  # a worker can take it


class Intake:
    """The bytes of one request. `unread` tells that more is to come, or has come, than belongs to it."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._state = _State.HEAD
        self._buffer = bytearray()
        self._at = 0  # where looking goes on
        self._end = 0  # HEAD, BODY: where the request ends
        self._to_swallow = 0
        self._continue = False
        self.unread = False

    @property
    def begun(self) -> bool:
        """Whether anything has come."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> bool:
        """Take bytes; whether the request is whole now."""
        if self._state is _State.SWALLOW:
            self._to_swallow -= len(data)
            if self._to_swallow <= 0:
                self._done(self._end, unread=self._to_swallow < 0)
            return self._whole()
        self._buffer += data
        if self._state is _State.HEAD:
            self._look_for_head()
        if self._state is _State.BODY and len(self._buffer) >= self._end:
            self._done(self._end)
        if self._state is _State.CHUNKS:
            self._look_for_last_chunk()
        return self._whole()

    def wants_continue(self) -> bool:
        """Whether the sender waits for `100 Continue` before the body; true once."""
        wants, self._continue = self._continue and self._state in {_State.BODY, _State.CHUNKS}, False
        return wants

    def give_up(self) -> None:
        """No more will come: what is there is the request."""
        self._done(len(self._buffer), unread=True)

    def take(self) -> bytes:
        """The bytes of the request."""
        return bytes(self._buffer[: self._end])

    def _whole(self) -> bool:
        return self._state is _State.WHOLE

    def _look_for_head(self) -> None:
        first = self._buffer.find(b"\n", 0, self._limits.head)
        if first >= 0 and self._buffer[first - 1 : first] != b"\r":
            self._done(len(self._buffer), unread=True)
            return
        found = self._buffer.find(_HEAD_END, max(0, self._at - 3))
        if found < 0 or found > self._limits.head:
            self._at = len(self._buffer)
            if found > 0 or self._at > self._limits.head:
                self._done(self._limits.head + 1, unread=True)
            return
        self._at = found + len(_HEAD_END)
        self._read_head(bytes(self._buffer[:found]))

    def _read_head(self, head: bytes) -> None:
        headers = {
            name.strip().lower(): value.strip().lower()
            for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
        }
        self._continue = headers.get(b"expect") == b"100-continue"
        if b"chunked" in headers.get(b"transfer-encoding", b""):
            self._state = _State.CHUNKS
            return
        text = headers.get(b"content-length", b"0")
        length = int(text) if _DIGITS.fullmatch(text) else 0
        self._state, self._end = _State.BODY, self._at + length
        if length > self._limits.body:
            came = len(self._buffer) - self._at
            self._end, self._to_swallow = self._at, length - came
            del self._buffer[self._at :]
            if self._continue or length > self._limits.swallow:
                self._done(self._end, unread=self._to_swallow > 0)
            elif self._to_swallow > 0:
                self._state = _State.SWALLOW
            else:
                self._done(self._end, unread=self._to_swallow < 0)

    def _look_for_last_chunk(self) -> None:
        while self._state is _State.CHUNKS:
            if len(self._buffer) > self._limits.head + self._limits.body:
                self._done(len(self._buffer), unread=True)
                return
            end = self._buffer.find(b"\r\n", self._at, self._at + _MAX_CHUNK_LINE)
            if end < 0:
                if len(self._buffer) - self._at > _MAX_CHUNK_LINE:
                    self._done(len(self._buffer), unread=True)
                return
            size = _SIZE.fullmatch(bytes(self._buffer[self._at : end]))
            if size is None:
                self._done(len(self._buffer), unread=True)
                return
            length = int(size[1], 16)
            if length == 0:
                self._look_for_trailers(end)
                return
            if len(self._buffer) < end + 2 + length + 2:
                return
            self._at = end + 2 + length + 2

    def _look_for_trailers(self, end: int) -> None:
        """Behind the last chunk: none, or lines up to a blank one."""
        if self._buffer[end + 2 : end + 4] == b"\r\n":
            self._done(end + 4)
            return
        found = self._buffer.find(_HEAD_END, end)
        if found >= 0:
            self._done(found + len(_HEAD_END))

    def _done(self, end: int, *, unread: bool = False) -> None:
        self._state = _State.WHOLE
        self._end = end
        self.unread = unread or len(self._buffer) > end
