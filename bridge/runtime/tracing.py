# SPDX-License-Identifier: Apache-2.0
"""Spans of extends, made from the audit records: the log and the trace tell one story.

Without [tracing] otlp_endpoint nothing of OpenTelemetry is imported, and audit records are written as before.

A record with a traceparent becomes a child of the span that the traceparent names. A record of the part that made
the trace becomes the trace's root span.
"""

import importlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol

from bridge.core.audit import AuditEvent, AuditRecord
from bridge.core.errors import ConfigError
from bridge.core.extend import root_span, span_id, trace_id
from bridge.runtime.audit import AuditLog

_OTLP: Final = "bridge.runtime.otlp"
_NS: Final = 1_000_000_000
_SAMPLED: Final = 1


class SpanRole(Enum):
    """The role of a span in its trace, in OpenTelemetry's words."""

    INTERNAL = "internal"  # work inside one part
    SERVER = "server"  # a request that was answered
    CLIENT = "client"  # a request that was sent
    PRODUCER = "producer"  # a message that was sent
    CONSUMER = "consumer"  # a message that was taken


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanData:
    """One span. Times in nanoseconds since the epoch; `parent` is None for the root span of a trace."""

    name: str
    trace: str
    span: str
    parent: str | None
    flags: int
    start: int
    end: int
    role: SpanRole
    failed: bool
    attributes: dict[str, str | int | float | bool]


class Spans(Protocol):
    """The way of spans to a collector. Never raises and never waits."""

    def send(self, spans: Sequence[SpanData]) -> None:
        """Queue spans for the collector; drop them where the queue is full."""

    def close(self) -> None:
        """Send the queued spans; wait a few seconds for them at most."""


def open_spans(endpoint: str | None, service: str) -> Spans | None:
    """Return the way to a collector, None without an endpoint. Raises ConfigError without the extra otel."""
    if not endpoint:
        return None
    try:
        otlp = importlib.import_module(_OTLP)
    except ImportError as ex:
        raise ConfigError(
            f"[tracing] otlp_endpoint needs the extra otel, and {ex.name or 'a part of it'} is missing: "
            "pip install 'extend-bridge[otel]', or leave the option unset"
        ) from ex
    spans: Spans = otlp.OtlpSpans(endpoint, service)
    return spans


class TracedAudit:
    """An audit log that makes spans of its records as well."""

    def __init__(self, part: str, log: AuditLog, spans: Spans) -> None:
        self._part = part
        self._log = log
        self._spans = spans

    def write(self, *records: AuditRecord) -> None:
        """Write one line per record, and queue its span."""
        self._log.write(*records)
        self._spans.send(list(spans_of(self._part, records)))


_ROLES: Final = {
    AuditEvent.RECEIVED: SpanRole.CONSUMER,
    AuditEvent.POSTED: SpanRole.CLIENT,
    AuditEvent.DEFERRED: SpanRole.PRODUCER,
    AuditEvent.PARKED: SpanRole.PRODUCER,
    AuditEvent.ACCEPTED: SpanRole.SERVER,
    AuditEvent.REFUSED: SpanRole.SERVER,
    AuditEvent.DISPATCHED: SpanRole.PRODUCER,
}
_BEGINS: Final = frozenset({AuditEvent.RECEIVED, AuditEvent.ACCEPTED, AuditEvent.BEHIND})
_WRONG: Final = frozenset({AuditEvent.FAILED, AuditEvent.PARKED, AuditEvent.REFUSED})
_FIELDS: Final = (
    "server", "volume", "host", "project", "extend_id", "message_id", "request_id", "global_request_id",
    "attempt", "attempt_id", "outcome", "reason",
)  # fmt: skip


def spans_of(part: str, records: Sequence[AuditRecord]) -> Iterator[SpanData]:
    """Yield the spans of records that were written together.

    The steps of a host come in one report, one after another, so they are laid end to end before the report.
    """
    begun: set[str] = set()
    later = _seconds_after(records)
    for record, after in zip(records, later, strict=True):
        if record.traceparent is None:
            continue
        trace, named = trace_id(record.traceparent), span_id(record.traceparent)
        is_root = record.event in _BEGINS and trace not in begun and named == root_span(part, trace)
        begun.add(trace)
        end = record.at - after
        yield SpanData(
            name=_name(record),
            trace=trace,
            span=named if is_root else os.urandom(8).hex(),
            parent=None if is_root else named,
            flags=int(record.traceparent[-2:], 16) & _SAMPLED,
            start=int((end - (record.seconds or 0.0)) * _NS),
            end=int(end * _NS),
            role=_ROLES.get(record.event, SpanRole.INTERNAL),
            failed=record.event in _WRONG or record.outcome == "failed",
            attributes=_attributes(part, record),
        )


def _seconds_after(records: Sequence[AuditRecord]) -> list[float]:
    """Return for each record the seconds of the steps of its attempt that come after it."""
    later: list[float] = []
    sums: dict[str | None, float] = {}
    for record in reversed(records):
        is_step = record.event is AuditEvent.STEP
        later.append(sums.get(record.attempt_id, 0.0) if is_step else 0.0)
        if is_step:
            sums[record.attempt_id] = sums.get(record.attempt_id, 0.0) + (record.seconds or 0.0)
    return later[::-1]


def _name(record: AuditRecord) -> str:
    return f"step {record.data.get('step', '')}" if record.event is AuditEvent.STEP else record.event.value


def _attributes(part: str, record: AuditRecord) -> dict[str, str | int | float | bool]:
    """Return the record's fields and plain data, under names of our own and OpenStack's usual name."""
    fields: dict[str, Any] = {name: getattr(record, name) for name in _FIELDS}
    said = {f"extend_bridge.{name}": value for name, value in fields.items() if value is not None}
    said |= {
        f"extend_bridge.{name}": value
        for name, value in record.data.items()
        if isinstance(value, str | int | float | bool)
    }
    if (request_id := record.global_request_id or record.request_id) is not None:
        said["openstack.request_id"] = request_id
    return {**said, "extend_bridge.part": part}
