# SPDX-License-Identifier: Apache-2.0
"""The files that can be replayed: recordings, raw captures of other tools, audit logs.

Each line is read by the listener's own reader, because a replay must decide as the listener does.
"""

import base64
import binascii
import gzip
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry

from bridge.core.audit import AuditEvent, AuditRecord
from bridge.core.errors import OperatorError
from bridge.core.extend import ExtendKey, is_uuid
from bridge.runtime.metrics import ListenerMetrics
from listener.decode import Events, NotificationReader, Raw
from listener.lanes import Parked
from listener.notification import Origin
from listener.telemetry import Telemetry

_MAX_BYTES: Final = 16 * 1024 * 1024
_MAX_ROWS: Final = 10_000
_BASE64: Final = ("body_b64", "body_base64")


@dataclass(frozen=True, slots=True)
class Item:
    """One event to be sent. `at`: epoch seconds of its recording, None where the recording does not say."""

    key: ExtendKey
    origin: Origin
    at: float | None


@dataclass(slots=True)
class Recording:
    """The events of the files, in order, and counts of the other messages."""

    items: list[Item] = field(default_factory=list)
    messages: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    parked: Counter[str] = field(default_factory=Counter)
    unreadable: Counter[str] = field(default_factory=Counter)


class _Quiet:
    """An audit log without lines, because recordings are only read."""

    def write(self, *records: AuditRecord) -> None:
        """Drop the audit records."""


def read(paths: Sequence[Path]) -> Recording:
    """Read files, compressed files too; raises OperatorError that names file and line."""
    metrics = ListenerMetrics(CollectorRegistry())
    reader = NotificationReader(Telemetry(_Quiet(), metrics), max_bytes=_MAX_BYTES, max_rows=_MAX_ROWS)
    recording = Recording()
    for path in paths:
        for where, row in _rows(path):
            if "schema" in row and "event" in row:
                _audited(row, recording)
            else:
                _message(row, where, reader, recording)
    for metric in metrics.skipped.collect():
        for sample in metric.samples:
            if sample.name.endswith("_total") and sample.value:
                recording.skipped[sample.labels["reason"]] += int(sample.value)
    return recording


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        packed = path.read_bytes()[:2] == b"\x1f\x8b" if path.suffix == ".gz" else False
        with gzip.open(path) if packed else path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                where = f"{path}, line {number}"
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as ex:
                    raise OperatorError(f"{where}: not JSON") from ex
                if not isinstance(row, dict):
                    raise OperatorError(f"{where}: expected an object")
                yield where, row
    except (OSError, EOFError) as ex:
        raise OperatorError(f"{path} cannot be read: {getattr(ex, 'strerror', None) or ex}") from ex


def _message(row: Mapping[str, Any], where: str, reader: NotificationReader, recording: Recording) -> None:
    try:
        body = _body(row)
    except (ValueError, binascii.Error) as ex:
        raise OperatorError(f"{where}: {ex}") from ex
    recording.messages += 1
    found = reader.read(body)
    captured = row.get("captured_at")
    at = float(captured) if isinstance(captured, int | float) else None
    match found:
        case Events():
            recording.items += [Item(key, found.origin, at) for key in found.keys]
        case Parked():
            recording.parked[found.reason.value] += 1
        case Raw():
            recording.unreadable[found.reason.value] += 1


def _body(row: Mapping[str, Any]) -> bytes:
    """Return a row's body: text unchanged, base64 decoded where a key or hint says so, an object as JSON."""
    for key in _BASE64:
        if key in row:
            return base64.b64decode(str(row[key]), validate=True)
    if "body" not in row:
        raise ValueError("neither a message with a body nor a line of an audit log")
    body = row["body"]
    if not isinstance(body, str):
        return json.dumps(body).encode()
    if "base64" in {row.get("body_encoding"), row.get("encoding")}:
        return base64.b64decode(body, validate=True)
    return body.encode("utf-8", "surrogatepass")


def _audited(row: Mapping[str, Any], recording: Recording) -> None:
    """Add an event that the listener received or, without a listener's log, that the API accepted."""
    if row["event"] != AuditEvent.RECEIVED or not is_uuid(row.get("server")) or not is_uuid(row.get("volume")):
        return
    recording.messages += 1
    key = ExtendKey(row["server"], row["volume"])
    recording.items.append(Item(key, Origin.from_wire(row), _stamp(row.get("time"))))


def _stamp(text: object) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp() if isinstance(text, str) else None
    except ValueError:
        return None
