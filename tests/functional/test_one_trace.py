# SPDX-License-Identifier: Apache-2.0
"""One trace from Cinder's notifier to the host's report: in a collector, the journal, the log and the metrics."""

import json
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import requests
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.oslo_messaging import OsloMessagingInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from oslo_config import cfg
from oslo_messaging import Notifier, get_notification_transport

from bridge.core.extend import gib
from bridge.journal.tables import extends
from tests.conftest import missing
from tests.functional.conftest import Vhost
from tests.functional.small_cloud import small_cloud
from tests.functional.test_whole_path import Cloud
from tests.lab.deploy import run_processes
from tests.lab.hypervisor import have_hypervisor
from tests.lab.otlp_collector import CollectedSpan, Collector
from tests.lab.waiting import until

pytestmark = pytest.mark.functional

TOLD = {"received", "posted", "accepted", "dispatched", "step resize", "closed"}


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector of this test."""
    with Collector() as collector:
        yield collector


@pytest.fixture
def cloud(vhost: Vhost, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """Everything ready, the guest known; the collector gets spans every 100 ms."""
    if not have_hypervisor():
        missing("QEMU, libvirt or gcc")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    with ExitStack() as stack:
        small = small_cloud(stack, vhost, extra=f"[tracing]\notlp_endpoint = {collector.url}")
        bridge = run_processes(small.site, stack)
        until(lambda: small.site.knows(small.guest.server_id), "the guest is known")
        yield Cloud(small=small, bridge=bridge)


def _notify(cloud: Cloud, collector: Collector, size: int) -> None:
    """Send the notification as an instrumented Cinder does: oslo.messaging's notifier, with its own span."""
    body, request_id = cloud.small.grow(size)
    provider = TracerProvider(resource=Resource.create({"service.name": "cinder-volume"}))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=f"{collector.url}/v1/traces")))
    instrumentor = OsloMessagingInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    try:
        transport = get_notification_transport(cfg.ConfigOpts(), url=cloud.bridge.site.bus_url)
        notifier = Notifier(transport, publisher_id="volume.v", driver="messagingv2", topics=["extend_bridge"])
        payload = json.loads(json.loads(body)["oslo.message"])["payload"]
        notifier.info({"request_id": request_id}, "volume.resize.end", payload)
        transport.cleanup()
    finally:
        instrumentor.uninstrument()
        provider.shutdown()


def test_one_trace_from_cinders_notifier_to_the_closed_extend(cloud: Cloud, collector: Collector) -> None:
    _notify(cloud, collector, 2)
    cloud.guest.wait_size(gib(2))
    until(cloud.closed, "the extend closes")
    (sent,) = (span for span in collector.spans() if span.service == "cinder-volume")

    def spans() -> list[CollectedSpan]:
        return [span for span in collector.spans(sent.trace) if span is not sent]

    until(lambda: {span.name for span in spans()} >= TOLD, "the collector has every span")
    assert {span.parent for span in spans()} == {sent.span}
    assert {span.service for span in spans()} == {f"extend-bridge-{p}" for p in ("listener", "api", "engine")}
    assert all(span.start <= span.end for span in spans())
    (row,) = cloud.rows(extends)
    assert str(row["traceparent"])[3:52] == f"{sent.trace}-{sent.span}"
    lines = [json.loads(line) for line in cloud.bridge.site.audit_file.read_text().splitlines()]
    assert {line.get("trace_id") for line in lines if line.get("volume") == cloud.disk.volume_id} == {sent.trace}
    url = f"http://127.0.0.1:{cloud.bridge.site.ports['engine']}/metrics"
    shown = requests.get(url, headers={"Accept": "application/openmetrics-text; version=1.0.0"}, timeout=60).text
    assert f'# {{trace_id="{sent.trace}"}}' in shown
    assert "trace_id" not in requests.get(url, timeout=60).text


def test_an_extend_without_a_trace_of_its_own_gets_one_that_its_request_id_finds(
    cloud: Cloud,
    collector: Collector,
) -> None:
    request_id = cloud.extend(2)
    trace = request_id.removeprefix("req-").replace("-", "")
    until(lambda: {span.name for span in collector.spans(trace)} >= TOLD, "the collector has every span")
    (root,) = (span for span in collector.spans(trace) if not span.parent)
    assert (root.name, root.service) == ("received", "extend-bridge-listener")
    assert {span.parent for span in collector.spans(trace) if span is not root} == {root.span}
