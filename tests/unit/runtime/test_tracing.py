# SPDX-License-Identifier: Apache-2.0
"""Spans of audit records: their tree, their times, and what a process without a collector imports."""

import subprocess
import sys
import time

import pytest

from bridge.core.audit import AuditEvent, AuditRecord
from bridge.core.errors import ConfigError
from bridge.core.extend import made_by, span_id, trace_id
from bridge.runtime.tracing import SpanData, SpanRole, Spans, TracedAudit, open_spans, spans_of
from tests.lab.otlp_collector import Collector
from tests.lab.paths import ROOT
from tests.lab.ports import steady_port
from tests.lab.trail import made_id
from tests.lab.waiting import until

THEIRS = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
AT = 1000.0


def record(event: AuditEvent, traceparent: str | None = THEIRS, **more: object) -> AuditRecord:
    """A record of one extend."""
    return AuditRecord(event=event, at=AT, volume=made_id(1), traceparent=traceparent, **more)  # type: ignore[arg-type]


def test_a_record_without_a_trace_makes_no_span() -> None:
    assert list(spans_of("engine", [record(AuditEvent.SURVEYED, None)])) == []


def test_spans_of_a_trace_that_came_in_are_children_of_the_callers_span() -> None:
    spans = list(spans_of("listener", [record(AuditEvent.RECEIVED), record(AuditEvent.POSTED, seconds=0.5)]))
    assert {(span.trace, span.parent) for span in spans} == {(trace_id(THEIRS), span_id(THEIRS))}
    assert [span.role for span in spans] == [SpanRole.CONSUMER, SpanRole.CLIENT]
    assert (spans[1].start, spans[1].end) == (int((AT - 0.5) * 1e9), int(AT * 1e9))


@pytest.mark.parametrize(
    ("part", "event"),
    [("listener", AuditEvent.RECEIVED), ("api", AuditEvent.ACCEPTED), ("engine", AuditEvent.BEHIND)],
)
def test_the_part_that_made_the_trace_sends_its_root_once_and_no_other_part_does(
    part: str, event: AuditEvent
) -> None:
    made = made_by(part, None)
    first, second = spans_of(part, [record(event, made), record(event, made)])
    assert (first.span, first.parent) == (span_id(made), None)
    assert second.parent == first.span != second.span
    (elsewhere,) = spans_of("another", [record(event, made)])
    assert elsewhere.parent == span_id(made)


def test_the_steps_of_a_host_lie_end_to_end_before_its_report() -> None:
    steps = [
        record(AuditEvent.STEP, attempt_id=made_id(9), seconds=seconds, data={"step": name})
        for name, seconds in (("find", 1.0), ("resize", 2.0))
    ]
    other = record(AuditEvent.STEP, attempt_id=made_id(8), seconds=5.0, data={"step": "find"})
    end = record(AuditEvent.CLOSED, attempt_id=made_id(9), seconds=9.0)
    find, resize, alone, closed = spans_of("engine", [*steps, other, end])
    assert [find.name, resize.name, closed.name] == ["step find", "step resize", "closed"]
    assert (find.start, find.end, resize.start, resize.end) == tuple(int(t * 1e9) for t in (997, 998, 998, 1000))
    assert (alone.start, closed.start) == (int(995 * 1e9), int(991 * 1e9))


def test_a_trace_that_is_not_sampled_stays_so() -> None:
    (span,) = spans_of("engine", [record(AuditEvent.CLOSED, f"{THEIRS[:-2]}00")])
    assert span.flags == 0


class _Log:
    def __init__(self) -> None:
        self.written: list[AuditRecord] = []

    def write(self, *records: AuditRecord) -> None:
        self.written += records


class _Kept:
    def __init__(self) -> None:
        self.spans: list[SpanData] = []

    def send(self, spans: list[SpanData]) -> None:
        self.spans += spans

    def close(self) -> None:
        pass


def test_the_log_gets_each_record_beside_its_span() -> None:
    log, spans = _Log(), _Kept()
    TracedAudit("engine", log, spans).write(record(AuditEvent.OVERDUE), record(AuditEvent.CLOSED))  # type: ignore[arg-type]
    assert [r.event for r in log.written] == [AuditEvent.OVERDUE, AuditEvent.CLOSED]
    assert [s.name for s in spans.spans] == ["overdue", "closed"]


def test_without_a_collector_nothing_of_opentelemetry_is_imported() -> None:
    """API and SDK may be there, because oslo.messaging and oslo.middleware import them where they are installed."""
    code = (
        "import sys, bridge.cmd.all_in_one, bridge.wsgi\nfrom bridge.runtime.tracing import open_spans\n"
        "assert open_spans(None, 'x') is None\nassert 'bridge.runtime.otlp' not in sys.modules\n"
        "said = ('opentelemetry.exporter', 'google.protobuf')\n"
        "assert not [name for name in sys.modules if name.startswith(said)]"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_collector_without_the_extra_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "bridge.runtime.otlp", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(ConfigError, match=r"pip install 'extend-bridge\[otel\]'"):
        open_spans("http://127.0.0.1:4318", "test")


def _span(name: str) -> SpanData:
    (span,) = spans_of("engine", [record(AuditEvent.STEP, host="h1", attempt=2, data={"step": name})])
    return span


def _spans(url: str) -> Spans:
    spans = open_spans(url, "extend-bridge-test")
    assert spans is not None
    return spans


def test_the_collector_gets_each_span_with_what_the_record_says() -> None:
    with Collector() as collector:
        spans = _spans(collector.url)
        spans.send([_span("find")])
        spans.close()
        (span,) = collector.spans()
    assert (span.service, span.name, span.trace, span.parent) == (
        "extend-bridge-test", "step find", trace_id(THEIRS), span_id(THEIRS),
    )  # fmt: skip
    assert span.attributes["extend_bridge.volume"] == made_id(1)
    assert (span.attributes["extend_bridge.host"], span.attributes["extend_bridge.attempt"]) == ("h1", "2")


def test_a_collector_that_is_away_costs_its_spans_and_one_line(caplog: pytest.LogCaptureFixture) -> None:
    spans = _spans(f"http://127.0.0.1:{steady_port()}")
    began = time.monotonic()
    for _ in range(5000):
        spans.send([_span("find")])
    until(lambda: "did not accept" in caplog.text, "the loss is said")
    spans.close()
    assert time.monotonic() - began < 120
    assert caplog.text.count("did not accept") == 1
    assert "Traceback" not in caplog.text
