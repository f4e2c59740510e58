# SPDX-License-Identifier: Apache-2.0
"""Grouping of audit lines by volume, from logs of any size and order, in bounded memory.

Lines are distributed by volume to temporary files. The temporary files are then read and sorted one by one.
A file holds about 16 MiB, so memory does not grow with the logs (Grace partitioning).
"""

import re
import tempfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import IO, Final

from bridge.audit.entry import Entry, read_entry
from bridge.audit.logfiles import Reading

_VOLUME: Final = re.compile(rb'"volume":"([^"\\]*)"')
_PART_BYTES: Final = 12 * 1024 * 1024
_PARTS_MAX: Final = 500  # files open at once
_SPOOL: Final = 64 * 1024


def by_volume(
    lines: Iterable[bytes],
    reading: Reading,
    *,
    size: int,
    wanted: Callable[[Entry], bool] = lambda _: True,
    alone: Callable[[Entry], None] = lambda _: None,
) -> Iterator[list[Entry]]:
    """Yield the entries of each volume, oldest first. `size` is the known size of the logs in bytes.

    Entries without a volume are passed to `alone`. Unreadable lines are counted in `reading`.
    """
    parts = max(1, min(_PARTS_MAX, size // _PART_BYTES))
    with ExitStack() as stack:
        files: list[IO[bytes]] = [
            stack.enter_context(tempfile.SpooledTemporaryFile(_SPOOL, prefix="extend-bridge-audit-"))
            for _ in range(parts)
        ]
        for line in lines:
            found = _VOLUME.search(line)
            if found is None:
                entry = _read(line, reading)
                if entry is not None and wanted(entry):
                    alone(entry)
                continue
            files[zlib.crc32(found.group(1)) % parts].write(line if line.endswith(b"\n") else line + b"\n")
        for file in files:
            file.seek(0)
            volumes: defaultdict[str, list[Entry]] = defaultdict(list)
            for line in file:
                entry = _read(line, reading)
                if entry is not None and entry.volume is not None and wanted(entry):
                    volumes[entry.volume].append(entry)
            file.close()
            for entries in volumes.values():
                entries.sort(key=_order)
                yield entries


def _read(line: bytes, reading: Reading) -> Entry | None:
    entry = read_entry(line)
    if entry is None:
        reading.unreadable += 1
    return entry


def _order(entry: Entry) -> float:
    return entry.at
