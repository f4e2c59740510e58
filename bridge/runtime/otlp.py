# SPDX-License-Identifier: Apache-2.0
"""Spans by OTLP over HTTP. Only this module imports OpenTelemetry, and only a configured process loads it.

A collector that is away costs spans, and nothing else: a full queue drops them, a thread of its own sends them.
"""

import logging
import threading
import time
from collections.abc import Sequence
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from bridge import VERSION
from bridge.core.errors import ConfigError
from bridge.core.redact import safe_url
from bridge.runtime.tracing import SpanData

LOG = logging.getLogger(__name__)
_PATH: Final = "/v1/traces"
_TIMEOUT: Final = 5.0  # seconds of one request to the collector
_LAST_WORD: Final = 3.0  # seconds that the last spans may take at the end of a process
_QUIET: Final = 60.0  # seconds between two warnings
_SCOPE: Final = InstrumentationScope("extend-bridge", VERSION)


class OtlpSpans:
    """The way of spans to one collector."""

    def __init__(self, endpoint: str, service: str) -> None:
        """Keep the address; nothing is sent yet. Raises ConfigError for an address that cannot be used."""
        url = endpoint if endpoint.endswith(_PATH) else endpoint.rstrip("/") + _PATH
        for name in ("opentelemetry.exporter", "opentelemetry.sdk"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # tracebacks; _Exporter warns in one line
        self._resource = Resource.create({"service.name": service, "service.version": VERSION})
        try:
            exporter = OTLPSpanExporter(endpoint=url, timeout=_TIMEOUT)
        except Exception as ex:
            raise ConfigError(f"[tracing] otlp_endpoint {safe_url(endpoint)} cannot be used: {ex}") from ex
        self._processor = BatchSpanProcessor(_Exporter(exporter, safe_url(endpoint)))

    def send(self, spans: Sequence[SpanData]) -> None:
        """Queue spans that are sampled; a full queue drops them."""
        for span in spans:
            self._processor.on_end(self._readable(span))

    def close(self) -> None:
        """Send the queued spans; wait a few seconds for them at most."""
        last = threading.Thread(target=self._processor.shutdown, name="spans-end", daemon=True)
        last.start()
        last.join(_LAST_WORD)

    def _readable(self, span: SpanData) -> ReadableSpan:
        trace = int(span.trace, 16)
        flags = TraceFlags(span.flags)
        parent = None
        if span.parent is not None:
            parent = SpanContext(trace, int(span.parent, 16), is_remote=True, trace_flags=flags)
        return ReadableSpan(
            name=span.name,
            context=SpanContext(trace, int(span.span, 16), is_remote=False, trace_flags=flags),
            parent=parent,
            resource=self._resource,
            attributes=span.attributes,
            kind=SpanKind[span.role.name],
            status=Status(StatusCode.ERROR if span.failed else StatusCode.UNSET),
            start_time=span.start,
            end_time=span.end,
            instrumentation_scope=_SCOPE,
        )


class _Exporter(SpanExporter):
    """An exporter that warns of lost spans in one line, once a minute at most."""

    def __init__(self, inner: SpanExporter, shown: str) -> None:
        self._inner = inner
        self._shown = shown
        self._lost = 0
        self._warned = -_QUIET

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans; count and report those that the collector did not take."""
        result = self._inner.export(spans)
        if result is SpanExportResult.SUCCESS:
            return result
        self._lost += len(spans)
        now = time.monotonic()
        if now - self._warned >= _QUIET:
            self._warned = now
            LOG.warning(
                "the collector at %s did not accept %d spans; extends are not affected", self._shown, self._lost
            )
            self._lost = 0
        return result

    def shutdown(self) -> None:
        """Close the connection to the collector."""
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Return the exporter's own answer."""
        return self._inner.force_flush(timeout_millis)
