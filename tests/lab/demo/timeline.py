# SPDX-License-Identifier: Apache-2.0
"""The demo's voice: audit lines and what happened around them, as a timeline a person enjoys reading."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

GIB: Final = 1024**3
_DIM, _BOLD, _GREEN, _RESET = "\033[2m", "\033[1m", "\033[32m", "\033[0m"


def size(n: int | None) -> str:
    """Bytes, and GiB where it is a whole number of them."""
    if n is None:
        return "unknown"
    return f"{n} bytes ({n // GIB} GiB)" if n % GIB == 0 else f"{n} bytes"


class Timeline:
    """Prints lines with the time since the notification was published."""

    def __init__(self) -> None:
        self._colour = sys.stdout.isatty()
        self._zero = time.time()

    def title(self, text: str) -> None:
        """The first line."""
        self._print(self._paint(_BOLD, text))

    def before(self, what: str, text: str) -> None:
        """Something that is made ready."""
        self._print(f"  {self._paint(_DIM, f'{what:<11}')} {text}")

    def zero(self) -> None:
        """Time starts now."""
        self._zero = time.time()
        self._print("")

    def at(self, when: float, who: str, text: str) -> None:
        """Something that happened at `when` (epoch seconds)."""
        self._print(f"  {max(0.0, when - self._zero):8.3f} s  {self._paint(_BOLD, f'{who:<10}')} {text}")

    def took(self, seconds: float, who: str, text: str) -> None:
        """A step of which only the duration is known."""
        stamp = f"({seconds * 1000:.1f} ms)"
        self._print(f"  {self._paint(_DIM, f'{stamp:>10}')}  {self._paint(_BOLD, f'{who:<10}')} {text}")

    def end(self, text: str) -> None:
        """The last line."""
        self._print("")
        self._print(self._paint(_GREEN, text))

    def _paint(self, how: str, text: str) -> str:
        return f"{how}{text}{_RESET}" if self._colour else text

    @staticmethod
    def _print(text: str) -> None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


class AuditTail:
    """Reads the audit log as it grows and tells each line of one volume."""

    def __init__(self, path: Path, volume_id: str) -> None:
        self._path = path
        self._volume_id = volume_id
        self._read = 0
        self.ended: str | None = None

    def tell(self, timeline: Timeline) -> None:
        """Tell what is new; a line that is not whole yet waits for its rest."""
        with self._path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._read += len(line)
                record = json.loads(line)
                if record.get("volume") == self._volume_id:
                    self._tell_one(record, timeline)

    def _tell_one(self, record: Mapping[str, Any], timeline: Timeline) -> None:
        event, data = record["event"], record.get("data", {})
        if event == "step":
            text = _STEPS.get((data["step"], data.get("detail"))) or _STEPS.get((data["step"], None), data["step"])
            seen = f": {size(data['size'])}" if data.get("size") is not None else ""
            timeline.took(record["seconds"], "hostagent", f"{text}{seen}")
            return
        if event in {"closed", "failed"}:
            self.ended = record["outcome"]
        timeline.at(_epoch(record["time"]), record["part"], _SENTENCES.get(event, _plain)(record))


def _epoch(stamp: str) -> float:
    return datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC).timestamp()


def _plain(record: Mapping[str, Any]) -> str:
    return " ".join(str(record[k]) for k in ("event", "outcome", "reason", "host") if k in record)


_STEPS: Final[Mapping[tuple[str, str | None], str]] = {
    ("find", None): "found the guest's disk",
    ("before", None): "the guest has",
    ("refresh", None): "os-brick refreshed the host's device",
    ("refresh", "file"): "a file: no device of the host to refresh",
    ("resize", None): "told QEMU to grow the disk, which had",
    ("verify", None): "read back",
}
_SENTENCES: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "received": lambda r: f"read volume.resize.end of request {r.get('global_request_id') or r.get('request_id')}",
    "posted": lambda r: f"posted volume-extended for server {r['server']}: {r.get('reason', 'answered')}",
    "accepted": lambda _: "committed the event to the journal, answered 200",
    "dispatched": lambda r: f"asked Cinder, cast to host {r['host']}: bring it to {size(r['data'].get('target'))}",
    "closed": lambda r: f"closed: {r['outcome']}, read back {size(r.get('data', {}).get('after'))}",
}
