# SPDX-License-Identifier: Apache-2.0
"""Findings about audit logs. Each finding names a line of a file."""

from dataclasses import dataclass, field
from enum import StrEnum

from bridge.audit.logtext import LogText, Piece


class Damage(StrEnum):
    """Kinds of findings about an audit log."""

    EDITED = "edited"  # the line differs from what its writer wrote
    REMOVED = "removed"  # lines are missing between other lines
    REORDERED = "reordered"  # the line is not at the place where it was written
    CUT_OFF = "cut off"  # lines are missing at the end of a writer's lines
    INSERTED = "inserted"  # no writer wrote the line here
    UNPROVED = "not proved"  # a note, not a finding: these logs and heads cannot prove the line


@dataclass(frozen=True, slots=True)
class LogFinding:
    """A finding at one line of a file."""

    kind: Damage
    file: str
    line: int
    text: str


@dataclass(slots=True)
class Verified:
    """The result of a verification: findings in the order of files and lines, and counts."""

    findings: list[LogFinding] = field(default_factory=list)
    notes: list[LogFinding] = field(default_factory=list)
    lines: int = 0
    proved: int = 0
    plain: int = 0
    writers: int = 0


class Evidence:
    """The files that were read, and the findings in these files."""

    def __init__(self) -> None:
        self.logs: list[LogText] = []
        self.result = Verified()

    def find(self, kind: Damage, file: int, row: int, text: str) -> None:
        """Record a finding at a row of a file."""
        log = self.logs[file]
        if kind in {Damage.EDITED, Damage.INSERTED, Damage.REORDERED}:
            log.kinds[row] = Piece.NAMED
        self.result.findings.append(LogFinding(kind, str(log.path), log.where(row), text))

    def note(self, file: int, row: int, text: str) -> None:
        """Record that a row of a file is not proved."""
        log = self.logs[file]
        line = log.where(row) if 0 <= row < len(log.numbers) else 0
        self.result.notes.append(LogFinding(Damage.UNPROVED, str(log.path), line, text))

    def named(self, file: int, row: int) -> bool:
        """Return whether a finding already names this row."""
        return self.logs[file].kinds[row] == Piece.NAMED
