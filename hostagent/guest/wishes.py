# SPDX-License-Identifier: Apache-2.0
"""Growth that owners asked for and that is not finished, kept in `state_path` for the time after a restart.

A wish is one line at the end of a file, so that an extend neither waits for the disk nor for the wishes of others.
It outlives the process from then on, and a crash of the host as soon as a look into the guest has begun.
"""

import json
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bridge.core.extend import ExtendKey, clean_request_id, is_uuid

LOG = logging.getLogger(__name__)

FILE_NAME: Final = "grow.jsonl"
_MOST: Final = 10_000
_LINES_MORE: Final = 1000  # lines that are void, before the file is written anew


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowWish:
    """The request by which an owner's volume was extended."""

    request_id: str | None = None
    global_request_id: str | None = None


class GrowWishes:
    """The wishes of this host; for several threads. A file that cannot be written leaves those of this process."""

    def __init__(self, directory: Path | None) -> None:
        """`directory`: None keeps the wishes in this process only."""
        self._file = directory / FILE_NAME if directory is not None else None
        self._lock = threading.Lock()
        self._wishes: dict[ExtendKey, GrowWish] = _read(self._file) if self._file is not None else {}
        self._lines = _LINES_MORE  # of the file, as far as is known
        self._unsafe = False
        self._newer: list[Mapping[str, Any]] | None = None  # lines since the file began to be written anew

    def add(self, key: ExtendKey, wish: GrowWish) -> None:
        """Remember a wish. Returns without a wait for the disk."""
        with self._lock:
            self._wishes[key] = wish
            while len(self._wishes) > _MOST:
                del self._wishes[next(iter(self._wishes))]
            self._append([_row(key, wish)])
            self._unsafe = True

    def make_safe(self) -> None:
        """Sync the file to the disk; takes as long as the disk needs."""
        with self._lock:
            unsafe, self._unsafe = self._unsafe, False
        if not unsafe or self._file is None:
            return
        try:
            with self._file.open("ab") as out:
                os.fsync(out.fileno())
        except OSError as ex:
            _warn(self._file, ex)

    def get(self, key: ExtendKey) -> GrowWish | None:
        """Return the wish of one volume."""
        with self._lock:
            return self._wishes.get(key)

    def of(self, server_id: str) -> Mapping[str, GrowWish]:
        """Return the wishes of one guest by volume."""
        with self._lock:
            return {key.volume_id: wish for key, wish in self._wishes.items() if key.server_id == server_id}

    def servers(self) -> set[str]:
        """Return the guests with a wish."""
        with self._lock:
            return {key.server_id for key in self._wishes}

    def finish(self, finished: Mapping[ExtendKey, GrowWish]) -> None:
        """Remove wishes that are fulfilled, refused or void. A wish of a newer extend of the volume stays."""
        with self._lock:
            known = [key for key, wish in finished.items() if self._wishes.get(key) is wish]
            for key in known:
                del self._wishes[key]
            self._append([_row(key, None) for key in known])

    def tidy(self) -> None:
        """Write the file anew where most of its lines are void. Only the caller waits for the disk."""
        with self._lock:
            if self._file is None or self._newer is not None:
                return
            if self._lines <= 2 * len(self._wishes) + _LINES_MORE:
                return
            rows, self._newer = [_row(key, wish) for key, wish in self._wishes.items()], []
        part = self._file.with_suffix(".part")
        try:
            with part.open("w") as out:
                out.write(_text(rows))
                out.flush()
                os.fsync(out.fileno())
                with self._lock:
                    out.write(_text(self._newer))
                    out.flush()
                    part.replace(self._file)
                    self._lines, self._newer, self._unsafe = len(rows) + len(self._newer), None, True
        except OSError as ex:
            _warn(self._file, ex)
            with self._lock:
                self._newer = None

    def _append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if self._file is None or not rows:
            return
        self._lines += len(rows)
        if self._newer is not None:
            self._newer += rows
        try:
            with self._file.open("a") as out:
                out.write(_text(rows))
        except OSError as ex:
            _warn(self._file, ex)


def _text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return lines, each with an empty one before it: the last write of all can have been cut off."""
    return "".join(f"\n{json.dumps(row)}\n" for row in rows)


def _warn(file: Path, ex: OSError) -> None:
    LOG.warning("%s cannot be written: unfinished growth of file systems would be lost at a restart: %s", file, ex)


def _row(key: ExtendKey, wish: GrowWish | None) -> Mapping[str, Any]:
    """Return a line of the file; without a wish it ends the one before it."""
    row = {"server_id": key.server_id, "volume_id": key.volume_id}
    if wish is None:
        return {**row, "done": True}
    return {**row, "request_id": wish.request_id, "global_request_id": wish.global_request_id}


def _read(file: Path) -> dict[ExtendKey, GrowWish]:
    """Return the wishes of a file; lines that cannot be read, as of a write that was cut off, are left out."""
    try:
        lines = file.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    except OSError as ex:
        LOG.warning("%s cannot be read, unfinished growth of file systems is lost: %s", file, ex.strerror)
        return {}
    wishes: dict[ExtendKey, GrowWish] = {}
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(row, Mapping) or not is_uuid(row.get("server_id")) or not is_uuid(row.get("volume_id")):
            continue
        key = ExtendKey(row["server_id"], row["volume_id"])
        wishes.pop(key, None)
        if row.get("done") is not True:
            wishes[key] = GrowWish(
                request_id=clean_request_id(row.get("request_id")),
                global_request_id=clean_request_id(row.get("global_request_id")),
            )
    return wishes
