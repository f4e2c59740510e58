# SPDX-License-Identifier: Apache-2.0
"""Made-up audit logs: the lines of extends as the parts write them, for tests of what reads them."""

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from bridge.core.audit import AuditEvent, AuditRecord

START: Final = datetime(2026, 11, 1, 12, tzinfo=UTC).timestamp()


def made_id(number: int, kind: int = 0) -> str:
    """A UUID of a number, always the same."""
    return f"{number:08x}-{kind:04x}-4000-8000-000000000000"


def extend(
    number: int, *, at: float = START, result: str = "resized", took: float = 1.0, guest: int | None = None
) -> list[tuple[str, AuditRecord]]:
    """(part, record) of one extend from Cinder to its end; `result` open, parked, failed, or an outcome."""
    volume, server = made_id(number, 1), made_id(number if guest is None else guest, 2)
    request = f"req-{made_id(number, 3)}"
    common: dict[str, Any] = {"volume": volume, "server": server, "global_request_id": request}
    listener = {**common, "message_id": made_id(number, 4)}
    sent = datetime.fromtimestamp(at - 0.01, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    told = [
        ("listener", AuditRecord(event=AuditEvent.RECEIVED, at=at, data={"size_gib": 2, "sent": sent}, **listener))
    ]
    if result == "parked":
        parked = AuditRecord(event=AuditEvent.PARKED, at=at + 0.02, reason="event_bad", **listener)
        return [*told, ("listener", parked)]
    engine = {**common, "extend_id": made_id(number, 5), "attempt": 1, "attempt_id": made_id(number, 6)}
    told += [
        (
            "api",
            AuditRecord(event=AuditEvent.ACCEPTED, at=at + 0.01, request_id=f"req-{made_id(number, 7)}", **common),
        ),
        (
            "listener",
            AuditRecord(event=AuditEvent.POSTED, at=at + 0.02, outcome="delivered", reason="delivered", **listener),
        ),
        ("engine", AuditRecord(event=AuditEvent.DISPATCHED, at=at + 0.03, host="h1", **engine)),
    ]
    if result == "open":
        return told
    end = AuditEvent.FAILED if result in {"unsupported", "refused"} else AuditEvent.CLOSED
    engine["host"] = "h1"
    step = {"step": "resize", "size": 2**31}
    return [
        *told,
        (
            "engine",
            AuditRecord(event=AuditEvent.STEP, at=at + took, outcome="ok", seconds=0.2, data=step, **engine),
        ),
        (
            "engine",
            AuditRecord(event=end, at=at + took, outcome=result, reason="size_reached", seconds=took, **engine),
        ),
    ]


def lines(records: list[tuple[str, AuditRecord]]) -> list[str]:
    """As they stand in a log."""
    return [record.to_line(part) for part, record in records]


def many(number: int, seed: int = 1) -> Iterator[str]:
    """Lines of so many extends, six each, one after the other; cheap to make."""
    chance = random.Random(seed)
    template = lines(extend(0))
    stamps = [json.loads(line)["time"] for line in template]
    for n in range(number):
        for line, stamp in zip(template, stamps, strict=True):
            at = datetime.fromisoformat(stamp).timestamp() + n * 0.01 + chance.random() * 0.001
            time = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            yield line.replace("00000000-", f"{n:08x}-").replace(stamp, time)
