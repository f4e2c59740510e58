# SPDX-License-Identifier: Apache-2.0
"""Prometheus metrics of all daemons, with their help texts.

Each part gets the metrics object it counts with; each process has a registry of its own.
"""

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from bridge import VERSION
from bridge.core.extend import trace_id
from bridge.runtime.health import Health

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


def new_registry(part: str) -> CollectorRegistry:
    """Return a registry with the build info of this part."""
    registry = CollectorRegistry()
    Info("extend_bridge_build", "Version of the running code", registry=registry).info(
        {"version": VERSION, "part": part}
    )
    return registry


def audit_lost(registry: CollectorRegistry) -> Counter:
    """Return the counter of audit lines that could not be written: disk full, directory gone."""
    return Counter("extend_bridge_audit_lost_lines", "Audit log lines that could not be written", registry=registry)


def bus_blocked(registry: CollectorRegistry) -> Gauge:
    """Return the count of this process's connections that the broker takes no messages from."""
    return Gauge(
        "extend_bridge_bus_blocked",
        "Connections that the broker blocks because of its memory or disk space alarm",
        registry=registry,
    )


def exemplar(traceparent: str | None) -> dict[str, str] | None:
    """Return the labels of an exemplar: the trace that a measured value belongs to."""
    return {"trace_id": trace_id(traceparent)} if traceparent is not None else None


class ReadyCollector(Collector):
    """Collector of each health check and each part's oldest due item, so that an alert can name what waits."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the checks and ages as gauges."""
        ready = GaugeMetricFamily("extend_bridge_ready", "1 while the check is ready, else 0", labels=["check"])
        for name, check in self._health.checks().items():
            ready.add_metric([name], float(check.ok))
        yield ready
        oldest = GaugeMetricFamily(
            "extend_bridge_oldest_due_seconds",
            "Seconds for which the oldest due item of a part has waited, 0 without one",
            labels=["check"],
        )
        for name, seconds in self._health.oldest_due().items():
            oldest.add_metric([name], seconds)
        yield oldest


class ListenerMetrics:
    """Metrics of the listener."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.messages = Counter(
            "extend_bridge_listener_messages", "Messages received from the notification queues", registry=registry
        )
        self.skipped = Counter(
            "extend_bridge_listener_skipped",
            "Messages and attachment rows that are not an extend, by reason",
            ["reason"],
            registry=registry,
        )
        self.events = Counter(
            "extend_bridge_listener_events",
            "Events by verdict and reason",
            ["verdict", "reason"],
            registry=registry,
        )
        self.unreadable = Counter(
            "extend_bridge_listener_unreadable",
            "Messages put into the unreadable queue, by reason",
            ["reason"],
            registry=registry,
        )
        self.held = Counter(
            "extend_bridge_listener_held",
            "Events held because the endpoint could not be used, counted once per hold, by reason",
            ["reason"],
            registry=registry,
        )
        self.parked = Counter(
            "extend_bridge_listener_parked",
            "Events and messages that were parked for an operator, by reason",
            ["reason"],
            registry=registry,
        )
        self.deferred = Counter(
            "extend_bridge_listener_deferred",
            "Events put into the slow lane, by reason",
            ["reason"],
            registry=registry,
        )
        self.in_hand = Gauge(
            "extend_bridge_listener_in_hand",
            "Notifications received and not yet acknowledged",
            registry=registry,
        )
        self.due = Counter(
            "extend_bridge_listener_due", "Events that came back from the slow lane", registry=registry
        )
        self.due_in_hand = Gauge(
            "extend_bridge_listener_due_in_hand",
            "Events that came back from the slow lane and are not yet acknowledged",
            registry=registry,
        )


class ApiMetrics:
    """Metrics of the API."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter("extend_bridge_api_requests", "Requests by status", ["status"], registry=registry)
        self.events = Counter("extend_bridge_api_events", "Events by their code", ["code"], registry=registry)


class EngineMetrics:
    """Metrics of the engine."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.casts = Counter(
            "extend_bridge_engine_casts", "Orders by result of the cast", ["result"], registry=registry
        )
        self.attempts = Counter(
            "extend_bridge_engine_attempts", "Reported attempts by outcome", ["outcome"], registry=registry
        )
        self.closed = Counter(
            "extend_bridge_engine_closed", "Closed extends by outcome", ["outcome"], registry=registry
        )
        self.duplicate_hosts = Counter(
            "extend_bridge_engine_duplicate_hosts",
            "Changes between two host agents that report under one name",
            registry=registry,
        )
        self.open = Gauge("extend_bridge_engine_open", "Open extends in the journal", registry=registry)
        self.oldest = Gauge(
            "extend_bridge_engine_oldest_seconds", "Age of the oldest open extend, 0 without one", registry=registry
        )
        self.behind = Gauge(
            "extend_bridge_behind_guests",
            "Guests that are behind their volume now, with or without an open extend, by reason",
            ["reason"],
            registry=registry,
        )
        self.behind_oldest = Gauge(
            "extend_bridge_behind_oldest_seconds",
            "Seconds for which the guest that is behind longest has been behind its volume, 0 without one",
            registry=registry,
        )
        self.extending_oldest = Gauge(
            "extend_bridge_extending_oldest_seconds",
            "Seconds for which Cinder has been extending the volume that it extends longest, 0 without one",
            registry=registry,
        )
        self.unseen = Gauge(
            "extend_bridge_unseen_guests",
            "Attached volumes whose size in the guest is not known, by reason",
            ["reason"],
            registry=registry,
        )
        self.file_systems = Gauge(
            "extend_bridge_file_systems",
            "Volumes by the state of the file system on them: fits, grown, behind, refused, failed, unknown",
            ["state"],
            registry=registry,
        )
        self.file_system_reports = Counter(
            "extend_bridge_engine_file_system_reports",
            "File systems that changed or were grown, by state and reason",
            ["state", "reason"],
            registry=registry,
        )
        self.host_alarms = Counter(
            "extend_bridge_engine_host_alarms",
            "Alarms about messages of host agents, by reason and host",
            ["reason", "host"],
            registry=registry,
        )
        self.disputed = Gauge(
            "extend_bridge_disputed_guests",
            "Guests that several live hosts have claimed to run for a minute or longer",
            registry=registry,
        )
        self.overdue = Counter(
            "extend_bridge_engine_overdue",
            "Extends that became overdue",
            registry=registry,
        )
        self.extend_seconds = Histogram(
            "extend_bridge_engine_extend_seconds",
            "Seconds from the acceptance of an extend to its verified end",
            buckets=_SECONDS,
            registry=registry,
        )


class ReconcileMetrics:
    """Metrics of the last complete sweep of any engine, which each engine reads from the journal."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.guests = Gauge(
            "extend_bridge_reconcile_guests",
            "Attached volumes of the last complete reconcile pass by result: fine, behind, open, failed, "
            "cannot_see, busy",
            ["sight"],
            registry=registry,
        )
        self.last_pass = Gauge(
            "extend_bridge_reconcile_last_pass_timestamp_seconds",
            "Time at which the last complete reconcile pass ended, 0: never",
            registry=registry,
        )
        self.opened = Counter(
            "extend_bridge_reconcile_opened",
            "Extends that this engine opened for guests behind their volume",
            registry=registry,
        )


class AgentMetrics:
    """Metrics of the host agent."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.orders = Counter("extend_bridge_hostagent_orders", "Orders by outcome", ["outcome"], registry=registry)
        self.step_seconds = Histogram(
            "extend_bridge_hostagent_step_seconds",
            "Seconds that each step of an extend took",
            ["step"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.in_flight = Gauge(
            "extend_bridge_hostagent_in_flight",
            "Orders that workers have begun and not finished",
            registry=registry,
        )
        self.unsent = Gauge("extend_bridge_hostagent_unsent", "Reports waiting for the broker", registry=registry)
        self.abandoned = Gauge(
            "extend_bridge_hostagent_abandoned",
            "Abandoned libvirt calls that have not returned",
            registry=registry,
        )
        self.storage_reads = Gauge(
            "extend_bridge_hostagent_storage_reads_hanging",
            "Abandoned reads of storage that have not returned",
            registry=registry,
        )


EVERY: Final = (ListenerMetrics, ApiMetrics, EngineMetrics, ReconcileMetrics, AgentMetrics, audit_lost, bus_blocked)
"""The metrics of all daemons, for the documentation: each of these registers its own."""
