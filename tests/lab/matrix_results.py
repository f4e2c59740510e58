# SPDX-License-Identifier: Apache-2.0
"""Results of tools/matrix: one per part, kept beside the chroot, and their table. Standard library only."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

_COLUMNS: Final = ("part", "passed", "skipped", "failed", "seconds", "ended", "tree")


@dataclass(frozen=True, slots=True)
class PartResult:
    """The outcome of a part's last run. A command that is not pytest's counts as one test.

    `unsteady`: tests that passed at the second try only. `tree`: the commit, with a + where files were changed.
    """

    part: str
    passed: int = 0
    skipped: int = 0
    failed: tuple[str, ...] = ()
    unsteady: tuple[str, ...] = ()
    seconds: int = 0
    ended: str = ""
    tree: str = ""

    @classmethod
    def from_kept(cls, kept: Mapping[str, Any]) -> "PartResult":
        """Return the result that was kept; keys that this version does not know are left out."""
        known = {field.name: kept[field.name] for field in fields(cls) if field.name in kept}
        return cls(**known | {name: tuple(kept.get(name, ())) for name in ("failed", "unsteady")})


@dataclass(frozen=True, slots=True)
class ReleaseResults:
    """The results of a release's parts, in the order of the parts, and the versions that were there."""

    release: str
    versions: str
    left_out: tuple[str, ...]
    parts: tuple[PartResult, ...]

    @property
    def failed(self) -> list[str]:
        """Everything that failed, each with its part's name."""
        return [f"{part.part}: {test}" for part in self.parts for test in part.failed]

    def last_line(self) -> str:
        """Return the line that a run ends with."""
        passed, skipped = (sum(getattr(part, name) for part in self.parts) for name in ("passed", "skipped"))
        said = f"{skipped} skipped, " if skipped else ""
        return f"matrix {self.release}: {passed} passed, {said}{len(self.failed)} failed"

    def as_json(self) -> str:
        """Return the results as one JSON object."""
        return json.dumps(asdict(self), indent=2)

    def as_table(self) -> str:
        """Return the versions, a line for each part, and the names of what failed or was left out."""
        rows = [_COLUMNS, *(_row(part) for part in self.parts)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
        lines = [
            "  ".join(
                cell.rjust(width) if 0 < column < 5 else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        lines += [f"failed: {test}" for test in self.failed]
        lines += [
            f"passed at the second try only: {part.part}: {test}" for part in self.parts for test in part.unsteady
        ]
        lines += [f"left out, since it cannot be built there: {extra}" for extra in self.left_out]
        return "\n".join([f"versions: {self.versions}", *lines])


def _row(part: PartResult) -> tuple[str, ...]:
    numbers = (part.passed, part.skipped, len(part.failed), part.seconds)
    return (part.part, *map(str, numbers), part.ended, part.tree)


def read_results(results: Path) -> tuple[int, int, list[str]]:
    """Return how many tests passed, how many were skipped, and the names of those that failed, from JUnit's XML."""
    cases = list(ET.parse(results).iter("testcase"))
    failed = [
        f"{case.get('classname')}.{case.get('name')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    skipped = sum(case.find("skipped") is not None for case in cases)
    return len(cases) - len(failed) - skipped, skipped, failed


def kept_results(file: Path, order: Sequence[str]) -> list[PartResult]:
    """Return the last result of each part that ran, in this order."""
    kept = json.loads(file.read_text()) if file.exists() else {}
    return [PartResult.from_kept(kept[part]) for part in order if part in kept]


def keep_results(file: Path, results: Iterable[PartResult]) -> None:
    """Keep these results beside those of the other parts."""
    kept = json.loads(file.read_text()) if file.exists() else {}
    kept |= {result.part: asdict(result) for result in results}
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(kept, indent=2))
    part.replace(file)
