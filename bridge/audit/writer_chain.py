# SPDX-License-Identifier: Apache-2.0
"""The state of one writer's chain during reading."""

from array import array
from dataclasses import dataclass, field
from typing import Final

from bridge.core.audit import ChainHead, ChainLink

HELD: Final = 20_000  # lines of a writer that are held back for a missing line
DIGEST: Final = 16  # bytes of a line's hash


@dataclass(slots=True)
class HeldLine:
    """A line with a link of a chain: its file, row and line number, and the link."""

    file: int
    row: int
    number: int
    link: ChainLink


@dataclass(slots=True)
class WriterChain:
    """The state of one writer's chain. Lines are accepted in the order of their numbers.

    `late`: the accepted lines of a chain that did not begin with number 0, until they are too many. `backward`:
    accepted lines that stand in front of the line before them, which no writer does.
    """

    writer: str
    key: bytes | None = None
    decided: bool = False
    doubtful: dict[tuple[int, int], HeldLine] = field(default_factory=dict)
    claimed: str = ""
    part: str = "?"
    host: str = ""
    next: int | None = None
    before: str | None = None
    instead: str | None = None
    ahead: dict[int, list[HeldLine]] = field(default_factory=dict)
    held: int = 0
    digests: bytearray = field(default_factory=bytearray)
    first: int = 0
    newest: HeldLine | None = None
    files: dict[int, str] = field(default_factory=dict)
    rows: "dict[int, tuple[array[int], array[int]]]" = field(default_factory=dict)
    write: list[tuple[int, int]] = field(default_factory=list)
    lost: int = 0
    heads: dict[int, ChainHead] = field(default_factory=dict)
    proved_to: int = -1
    rewritten: bool = False
    proved: int = 0
    late: list[HeldLine] | None = None
    backward: dict[int, HeldLine] = field(default_factory=dict)

    def about(self) -> str:
        """Return the writer's name for a message."""
        return f"{self.part} writer {self.writer}"

    def digest(self, seq: int) -> str:
        """Return the hash of an accepted line, or an empty text for a number that is not known."""
        place = (seq - self.first) * DIGEST
        known = bytes(self.digests[place : place + DIGEST]) if place >= 0 else b""
        return known.hex() if known.strip(b"\0") else ""

    def put(self, held: HeldLine) -> None:
        """Remember the place of an accepted line."""
        rows, numbers = self.rows.setdefault(held.file, (array("q"), array("q")))
        rows.append(held.row)
        numbers.append(held.link.seq)

    def advance(self, held: HeldLine) -> None:
        """Make an accepted line the newest one."""
        if self.late is not None:
            self.late.append(held)
            if len(self.late) > HELD:
                self.late = None
        if self.newest is not None and (held.file, held.row) < (self.newest.file, self.newest.row):
            self.backward[held.link.seq] = held
        self.before, self.next, self.newest = held.link.hash, held.link.seq + 1, held
        self.digests += bytes.fromhex(held.link.hash)

    def move(self, there: HeldLine, here: HeldLine) -> None:
        """Take another line for the accepted one of the same number."""
        rows, numbers = self.rows[there.file]
        index = numbers.index(there.link.seq)
        del rows[index], numbers[index]
        self.put(here)
        if self.newest is there:
            self.newest = here
