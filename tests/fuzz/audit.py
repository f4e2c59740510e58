# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.fuzz.audit`: random edits of audit logs are named, and honest logs are not accused.

With --logs the logs are those of a real run: `tools/chaos --keep DIR`, and `--logs DIR`.
"""

import argparse
import gzip
import logging
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Protocol, Self

from bridge.audit.entry import stamp
from bridge.audit.evidence import LogFinding, Verified
from bridge.audit.verify import in_order, verify
from bridge.core.audit import ChainHead, read_head, read_link
from bridge.journal.audit_heads import AuditHeads
from bridge.journal.database import Database
from bridge.journal.settings import JournalSettings
from tests.lab import audit_logs
from tests.lab.audit_logs import AT_A_LINE, HonestLogs

_EDITS: Final = 25  # of each set of logs
_ALL: Final = {"kill": 0.02, "tear": 0.01, "rotate": 0.01, "pack": 0.01, "old": 0.03, "full": 0.02, "keep": 0.05,
               "stop": 0.01}  # fmt: skip
_TIME: Final = re.compile(rb'\{"schema":\d+,"time":"([^"]{1,40})"')
_EDITED: Final = {"kill": 0.01, "rotate": 0.01, "pack": 0.01, "old": 0.02, "keep": 0.05, "stop": 0.02}


@dataclass
class Tally:
    """Results: `accused` honest logs; edits that were `named`, only `noted` as not proved, or `missed`.

    `late`: seconds of each cut that took only lines behind the last head of a writer that was killed.
    """

    honest: int = 0
    accused: list[str] = field(default_factory=list)
    named: Counter[str] = field(default_factory=Counter)
    late: list[float] = field(default_factory=list)
    noted: Counter[str] = field(default_factory=Counter)
    unproved: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)


def honest_logs(seed: int, tally: Tally, run: "RealRun | None" = None) -> None:
    """Verify one set of logs to which only honest things happened."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        if run is None:
            logs: _Logs = _logs(Path(name), rng, _ALL)
            if rng.random() < 0.7:
                logs.stop()
        else:
            logs = run.lend(Path(name), rng, whole=rng.random() < 0.3)
        how = rng.choice(["as it is", "cat", "sort", "sort -m", "a copy", "no heads", "the oldest is gone"])
        files = _handled(logs, how, rng)
        made = verify(in_order(files), heads=() if how == "no heads" else logs.heads, key=logs.key)
    tally.honest += 1
    if made.findings:
        tally.accused.append(f"seed {seed}, {how}: {made.findings[0]}")


def edited_logs(seed: int, tally: Tally, run: "RealRun | None" = None) -> None:
    """Edit one set of logs in many ways, each by itself."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        if run is None:
            logs: _Logs = _logs(Path(name), rng, _EDITED)
            logs.stop()
        else:
            logs = run.lend(Path(name), rng)
        files = [path for path in in_order(logs.files()) if path.stat().st_size]
        known = set(_verify(logs).notes)
        for _ in range(_EDITS):
            path = rng.choice(files)
            kept, before = path.read_bytes(), audit_logs.read(path)
            lines = list(before)
            edit = audit_logs.random_edit(rng, lines, audit_logs.read(rng.choice(files)))
            if not edit.made or not lines:  # a file that is emptied is as one that rotation deleted
                continue
            if not _provable(edit, before):
                continue
            audit_logs.write(path, lines)
            about = f"seed {seed}: {edit.kind} at {path.name}:{edit.line}"
            _judge(about, edit, path, before, logs.heads, _verify(logs), known, tally)
            path.write_bytes(kept)


class _Logs(Protocol):
    """A set of logs with their proof."""

    directory: Path
    heads: list[ChainHead]
    key: bytes | None

    def files(self) -> list[Path]:
        """All files."""

    def stop(self) -> None:
        """All writers end in order."""


@dataclass
class RealRun:
    """The logs of a run of real parts, and what its journal and the listeners' logs kept."""

    directory: Path
    heads: list[ChainHead]
    key: bytes | None = None
    only: str = ""

    @classmethod
    def of(cls, directory: Path) -> Self:
        """Read what `tools/chaos --keep` left."""
        database = Database(JournalSettings(connection=f"sqlite:///{directory}/journal/journal.sqlite3"))
        heads = AuditHeads(database).all()
        database.dispose()
        for log in directory.glob("*.log"):
            lines = log.read_text(errors="replace").splitlines()
            heads += (head for line in lines if (head := read_head(line)) is not None)
        return cls(directory, heads)

    def files(self) -> list[Path]:
        """All files of the run, or those of one process."""
        return sorted(self.directory.glob(f"{self.only}*.audit.jsonl*"))

    def stop(self) -> None:
        """Do nothing, because the run is over."""

    def lend(self, directory: Path, rng: random.Random, *, whole: bool = False) -> "RealRun":
        """Copy all files, or those of one process: an edit is looked at where it was made."""
        names = sorted({path.name.split(".")[0] for path in self.files()})
        only = "" if whole else rng.choice(names)
        for path in self.files():
            if path.name.startswith(only):
                shutil.copy(path, directory)
        return replace(self, directory=directory, only=only)


def _verify(logs: _Logs) -> Verified:
    return verify(in_order(logs.files()), heads=logs.heads, key=logs.key)


def _provable(edit: audit_logs.LogEdit, before: list[bytes]) -> bool:
    """Return whether it can be seen: 0.1.0's own lines carry no proof of what is in them.

    A line without a chain in front of all others may be the end of an older log that was put there. The newline of
    the last line is not part of a record.
    """
    if not any(b'"hash"' in line for line in before):
        return False
    if (edit.kind == "old" and edit.line == 1) or (edit.kind == "glue" and edit.line == len(before)):
        return False
    return edit.kind not in AT_A_LINE - {"forge", "foreign", "old"} or b'"hash"' in before[edit.line - 1]


def _judge(
    about: str,
    edit: audit_logs.LogEdit,
    path: Path,
    before: list[bytes],
    heads: Sequence[ChainHead],
    made: Verified,
    known: set[LogFinding],
    tally: Tally,
) -> None:
    places = {(f.file, f.line) for f in made.findings}
    if made.findings and (
        edit.kind not in AT_A_LINE or any((str(path), edit.line + n) in places for n in (-1, 0, 1))
    ):
        tally.named[edit.kind] += 1
    elif (cut := _uncovered(before, audit_logs.read(path), heads)) is not None:
        tally.late.append(cut)
    elif made.findings or set(made.notes) - known:
        tally.noted[edit.kind] += 1
        tally.unproved.append(about)
    else:
        tally.missed.append(about)


def _uncovered(before: list[bytes], after: list[bytes], heads: Sequence[ChainHead]) -> float | None:
    """Return the seconds of the lines from an edit to the end of a file; None if a head covers one of them."""
    same = next((n for n, (one, two) in enumerate(zip(before, after, strict=False)) if one != two), len(after))
    cut = before[same:]
    newest: dict[str, int] = {}
    for head in heads:
        newest[head.writer] = max(head.seq, newest.get(head.writer, -1))
    links = [link for line in cut if (link := read_link(line.rstrip())) is not None]
    if not links or any(link.seq <= newest.get(link.writer, -1) for link in links):
        return None
    moments = [moment for line in cut if (moment := _at(line)) is not None]
    return moments[-1] - moments[0]


def _at(line: bytes) -> float | None:
    time = _TIME.match(line)
    return stamp(time[1].decode()) if time is not None else None


def _logs(directory: Path, rng: random.Random, odds: dict[str, float]) -> HonestLogs:
    logs = HonestLogs(directory, rng, key=rng.choice([None, b"k" * 32]), shared=rng.random() < 0.7)
    logs.run(rng.choice([5, 40, 200]), odds)
    return logs


def _handled(logs: _Logs, how: str, rng: random.Random) -> list[Path]:
    files = in_order(logs.files())
    for path in files[:-1] if isinstance(logs, RealRun) else ():
        if rng.random() < 0.5 and not how.startswith(("cat", "sort")):
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    files = in_order(logs.files())
    match how:
        case "a copy":
            path = rng.choice(files)
            path.with_name(f"copy-{path.name}").write_bytes(path.read_bytes())
        case "the oldest is gone" if len(files) > 1:
            files[0].unlink()
        case "cat" | "sort" | "sort -m":
            plain = [logs.directory / f"part-{n}" for n in range(len(files))]
            for file, part in zip(files, plain, strict=True):
                part.write_bytes(b"".join(audit_logs.read(file)))
                file.unlink()
            whole = subprocess.run(
                [*how.split(), *map(str, plain)], stdout=subprocess.PIPE, check=True, env={"LC_ALL": "C"}
            )
            for part in plain:
                part.unlink()
            (logs.directory / f"{getattr(logs, 'only', '')}.audit.jsonl").write_bytes(whole.stdout)
    return logs.files()


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0 when no honest log was accused, no edit was missed and each edit of a real run is named, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.audit", description=__doc__)
    parser.add_argument("--edits", type=int, default=1000, metavar="N", help="edits (default 1000)")
    parser.add_argument("--honest", type=int, default=100, metavar="N", help="honest logs (default 100)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of everything (default 1)")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="logs of a real run instead of made ones")
    options = parser.parse_args(argv)
    run = RealRun.of(options.logs) if options.logs is not None else None
    logging.disable(logging.CRITICAL)  # full disks of the honest logs
    tally, seed = Tally(), options.seed
    while tally.honest < options.honest:
        honest_logs(seed, tally, run)
        seed += 1
    while tally.named.total() + tally.noted.total() + len(tally.missed) + len(tally.late) < options.edits:
        edited_logs(seed, tally, run)
        seed += 1
    for text in [*tally.accused[:5], *tally.missed[:5], *tally.unproved[:5]]:
        sys.stdout.write(f"{text}\n")
    noted = ", ".join(f"{count} {kind}" for kind, count in tally.noted.most_common())
    sys.stdout.write(
        f"{tally.named.total()} edits named, {tally.noted.total()} not proved ({noted}), "
        f"{len(tally.late)} behind the last head of a killed writer "
        f"(the longest {max(tally.late, default=0):.1f} s), "
        f"{len(tally.missed)} missed; {len(tally.accused)} of {tally.honest} honest logs accused\n"
    )
    return 1 if tally.accused or tally.missed or (tally.noted and run is not None) else 0


if __name__ == "__main__":
    raise SystemExit(main())
