# SPDX-License-Identifier: Apache-2.0
"""The splitter of an audit log into records for verification, with their places and the text between records."""

import gzip
import io
import json
import re
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Final

from bridge.core.audit import ChainLink, read_link
from bridge.core.errors import OperatorError

_BEGIN: Final = b'{"schema":'
_RECORD: Final = re.compile(rb'\{"schema":\d+,"time":"')
_TIME: Final = re.compile(rb'\{"schema":\d+,"time":"([0-9T:.Z-]{20,32})"')
_FULL_BEGIN: Final = b'{"schema":1,"time":"'
_GZIP: Final = b"\x1f\x8b"
_LINE_MAX: Final = 4 * 1024 * 1024
_OF_A_CHAIN: Final = (b'"chain"', b'"writer":"', b'"hash":"')


class Piece(IntEnum):
    """Kinds of text in an audit log."""

    LINKED = 1  # a record with a link of a chain
    PLAIN = 2  # a record without a link, as 0.1.0 writes
    BROKEN = 3  # the beginning of a record, a record that is not JSON, or a record with half a link
    PREFIX = 4  # text in front of a record, as syslog writes
    FOREIGN = 5  # a line that is not a record
    NAMED = 6  # a finding names this piece, so its bytes are not counted again


class LineHomes:
    """The host and file to which each linked row was written, in two bytes a row."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._of = array("h")

    def put(self, row: int, name: str) -> None:
        """Record the host and file to which a row was written."""
        if name not in self.names:
            self.names.append(name)
        self._of.extend([-1] * (row + 1 - len(self._of)))
        self._of[row] = self.names.index(name)

    def get(self, row: int) -> str:
        """Return the host and file to which a row was written; empty when unknown."""
        place = self._of[row] if row < len(self._of) else -1
        return self.names[place] if place >= 0 else ""


@dataclass(slots=True)
class LogText:
    """One file, with one row for each piece.

    A row holds the piece's line number, first byte, length and kind. `written` is the byte offset at which the
    writer wrote the piece, or -1.

    `openings`: rows that open a file for their writer. `homes`: the host and file to which each linked row was
    written. `breaks`: pairs of rows between which lines are missing. `times`: times of the first and newest record.
    """

    path: Path
    numbers: "array[int]" = field(default_factory=lambda: array("q"))
    starts: "array[int]" = field(default_factory=lambda: array("q"))
    lengths: "array[int]" = field(default_factory=lambda: array("q"))
    kinds: "array[int]" = field(default_factory=lambda: array("b"))
    written: "array[int]" = field(default_factory=lambda: array("q"))
    openings: set[int] = field(default_factory=set)
    homes: LineHomes = field(default_factory=LineHomes)
    breaks: list[tuple[int, int]] = field(default_factory=list)
    times: tuple[str, str] | None = None
    prefixes: int = 0
    in_order: bool = True
    damaged: bool = False

    @property
    def prefixed(self) -> bool:
        """True when another program put text in front of most records."""
        return self.prefixes * 2 > len(self.numbers) - self.prefixes

    def where(self, row: int) -> int:
        """Return the line number of a row."""
        return self.numbers[row]


@dataclass(slots=True)
class LogPiece:
    """A piece of a file during reading. `ended`: a newline follows the piece."""

    row: int
    number: int
    kind: Piece
    text: bytes
    link: ChainLink | None = None
    ended: bool = True


def read_pieces(log: LogText) -> Iterator[LogPiece]:
    """Yield the pieces of a plain or gzipped file, and fill the rows of `log`. Raises OperatorError."""
    before = b""
    try:
        with log.path.open("rb") as raw:
            for number, start, line in _lines(raw, log):
                if line < before:
                    log.in_order = False
                before = line
                if (time := _TIME.match(line)) is not None:
                    said = time[1].decode()
                    log.times = (min(log.times[0], said), max(log.times[1], said)) if log.times else (said, said)
                for place, piece in _cut(line):
                    if piece.kind is Piece.PREFIX:
                        log.prefixes += 1
                    piece.row, piece.number = len(log.numbers), number
                    piece.ended = line.endswith(b"\n") and place + len(piece.text) + 1 == len(line)
                    log.numbers.append(number)
                    log.starts.append(start + place)
                    log.lengths.append(len(piece.text))
                    log.kinds.append(piece.kind)
                    log.written.append(-1)
                    yield piece
    except OSError as ex:
        raise OperatorError(f"{log.path} cannot be read: {ex.strerror or ex}") from ex


def _lines(raw: io.BufferedReader, log: LogText) -> Iterator[tuple[int, int, bytes]]:
    stream = gzip.GzipFile(fileobj=raw) if raw.peek(2)[:2] == _GZIP else raw
    number = start = 0
    try:
        while line := stream.readline(_LINE_MAX):
            number += 1
            yield number, start, line
            start += len(line)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        log.damaged = True


def _cut(line: bytes) -> Iterator[tuple[int, LogPiece]]:
    """Yield the pieces of one line: several when a torn record has no newline of its own, else one."""
    text = line.removesuffix(b"\n")
    if not text:
        return
    if text.startswith(_BEGIN) and text.find(_BEGIN, 1) < 0:
        yield 0, _piece(text)
        return
    begins = [match.start() for match in _RECORD.finditer(text)]
    if not begins:
        torn = text.startswith(_BEGIN) or _FULL_BEGIN.startswith(text) or not text.strip(b"\0")
        yield 0, LogPiece(0, 0, Piece.BROKEN if torn else Piece.FOREIGN, text)
        return
    if begins[0] > 0:
        front = text[: begins[0]]
        torn = front.startswith(_BEGIN) or _FULL_BEGIN.startswith(front) or not front.strip(b"\0")
        yield 0, LogPiece(0, 0, Piece.BROKEN if torn else Piece.PREFIX, front)
    for begin, end in zip(begins, [*begins[1:], len(text)], strict=True):
        yield begin, _piece(text[begin:end])


def _piece(text: bytes) -> LogPiece:
    link = read_link(text)
    if link is not None:
        return LogPiece(0, 0, Piece.LINKED, text, link)
    if any(word in text for word in _OF_A_CHAIN) or not _is_record(text):
        return LogPiece(0, 0, Piece.BROKEN, text)
    return LogPiece(0, 0, Piece.PLAIN, text)


def _is_record(text: bytes) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
