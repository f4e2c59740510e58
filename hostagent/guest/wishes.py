# SPDX-License-Identifier: Apache-2.0
"""Growth that owners asked for and that is not finished, kept in `state_path` for the time after a restart."""

import json
import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bridge.core.extend import ExtendKey, clean_request_id, is_uuid

LOG = logging.getLogger(__name__)

FILE_NAME: Final = "grow.json"
_VERSION: Final = 1
_MOST: Final = 10_000


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

    def add(self, key: ExtendKey, wish: GrowWish) -> None:
        """Remember a wish, durably before the growth begins."""
        with self._lock:
            self._wishes[key] = wish
            while len(self._wishes) > _MOST:
                del self._wishes[next(iter(self._wishes))]
            self._write()

    def of(self, server_id: str) -> Mapping[str, GrowWish]:
        """Return the wishes of one guest by volume."""
        with self._lock:
            return {key.volume_id: wish for key, wish in self._wishes.items() if key.server_id == server_id}

    def servers(self) -> set[str]:
        """Return the guests with a wish."""
        with self._lock:
            return {key.server_id for key in self._wishes}

    def finish(self, finished: Mapping[ExtendKey, GrowWish]) -> None:
        """Forget wishes that are fulfilled, refused, or void. A wish of a newer extend of the volume stays."""
        with self._lock:
            if known := [key for key, wish in finished.items() if self._wishes.get(key) is wish]:
                for key in known:
                    del self._wishes[key]
                self._write()

    def _write(self) -> None:
        if self._file is None:
            return
        rows = [
            {
                "server_id": key.server_id,
                "volume_id": key.volume_id,
                "request_id": wish.request_id,
                "global_request_id": wish.global_request_id,
            }
            for key, wish in self._wishes.items()
        ]
        part = self._file.with_suffix(".part")
        try:
            with part.open("w") as out:
                out.write(json.dumps({"version": _VERSION, "wishes": rows}))
                out.flush()
                os.fsync(out.fileno())
            part.replace(self._file)
        except OSError as ex:
            LOG.warning("%s cannot be written: growth of file systems is lost at a restart: %s", self._file, ex)


def _read(file: Path) -> dict[ExtendKey, GrowWish]:
    try:
        rows = json.loads(file.read_text())["wishes"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as ex:
        LOG.warning("%s cannot be read, its growth of file systems is forgotten: %s", file, type(ex).__name__)
        return {}
    return dict(wish for wish in map(_wish, rows if isinstance(rows, list) else []) if wish is not None)


def _wish(row: Any) -> tuple[ExtendKey, GrowWish] | None:
    if not isinstance(row, Mapping) or not is_uuid(row.get("server_id")) or not is_uuid(row.get("volume_id")):
        return None
    return ExtendKey(row["server_id"], row["volume_id"]), GrowWish(
        request_id=clean_request_id(row.get("request_id")),
        global_request_id=clean_request_id(row.get("global_request_id")),
    )
