# SPDX-License-Identifier: Apache-2.0
"""Audit log files as bytes: plain or gzipped, with a progress bar. Unreadable text is counted."""

import glob
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from bridge.core.errors import OperatorError

DEFAULT: Final = "/var/log/extend-bridge/audit*.log*"
_START: Final = b'{"schema":'
_GZIP: Final = b"\x1f\x8b"
_LINE_MAX: Final = 1024 * 1024
_TICK: Final = 2000  # lines between two updates of the bar


@dataclass(slots=True)
class Reading:
    """Counts of a reading.

    `torn`: files whose last line is incomplete, for example after a crash. `foreign`: lines of other programs.
    """

    files: int = 0
    lines: int = 0
    foreign: int = 0
    torn: int = 0
    unreadable: int = 0
    damaged: int = 0


def find(names: Sequence[str]) -> list[Path]:
    """Return the files of paths, patterns and directories; raises OperatorError for a name without a file."""
    found: dict[Path, None] = {}
    for name in names or [DEFAULT]:
        path = Path(name)
        if path.is_dir():
            matches = sorted(p for p in path.iterdir() if p.is_file() and "audit" in p.name)
        else:
            matches = [path] if path.exists() else [Path(p) for p in sorted(glob.glob(name))]  # noqa: PTH207
        if not matches:
            raise OperatorError(f"no audit log at {name}: name the files with --log")
        found.update(dict.fromkeys(matches))
    return list(found)


def lines(paths: Sequence[Path], reading: Reading, *, label: str) -> Iterator[bytes]:
    """Yield the audit lines of these files, each from its brace on; a prefix of syslog or journald is cut off.

    A terminal on standard error shows a progress bar. Raises OperatorError for a file that cannot be opened.
    """
    whole = sum(path.stat().st_size for path in paths)
    bar: tqdm[Any] = tqdm(
        total=whole, unit="B", unit_scale=True, desc=label, disable=None, leave=False, mininterval=0.2
    )
    with bar:
        for path in paths:
            reading.files += 1
            try:
                with path.open("rb") as raw:
                    yield from _lines_of(raw, reading, bar)
            except OSError as ex:
                raise OperatorError(f"{path} cannot be read: {ex.strerror or ex}") from ex


def _lines_of(raw: io.BufferedReader, reading: Reading, bar: "tqdm[Any]") -> Iterator[bytes]:
    packed = raw.peek(2)[:2] == _GZIP
    stream = gzip.GzipFile(fileobj=raw) if packed else raw
    start = raw.tell()
    told = start
    try:
        while line := stream.readline(_LINE_MAX):
            if reading.lines % _TICK == 0:
                bar.update(raw.tell() - told)
                told = raw.tell()
            found = line.find(_START)
            if found < 0:
                reading.foreign += 1
            elif not line.endswith(b"\n") and not line.endswith(b"}"):
                reading.torn += 1
            else:
                reading.lines += 1
                yield line[found:]
    except (EOFError, zlib.error, gzip.BadGzipFile):
        reading.damaged += 1  # the gzip file is cut short; the lines before the cut are good
    bar.update(raw.tell() - told)
