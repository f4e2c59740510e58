# SPDX-License-Identifier: Apache-2.0
"""The ops port of each daemon: /healthz/live, /healthz/ready, /metrics. It is up before anything it depends on."""

import json
import logging
import socket
from collections.abc import Iterable
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from bridge.http.server import HttpServer, StartResponse, WsgiApp
from bridge.runtime.config import OpsSettings
from bridge.runtime.health import Health

LOG = logging.getLogger(__name__)


def ops_app(health: Health, registry: CollectorRegistry) -> WsgiApp:
    """Return the WSGI application: 200 or 503 with each check and its reason, and the metrics.

    The metrics are in Prometheus' text format, or in OpenMetrics (with exemplars) for a caller that asks for it.
    """

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            encode, content_type = choose_encoder(environ.get("HTTP_ACCEPT", ""))
            start_response("200 OK", [("Content-Type", content_type)])
            return [encode(registry)]
        if path == "/healthz/live":
            hung = health.hung()
            start_response("503 Service Unavailable" if hung else "200 OK", [("Content-Type", "application/json")])
            return [json.dumps({"live": not hung, **({"hung": hung} if hung else {})}).encode() + b"\n"]
        if path == "/healthz/ready":
            checks = health.checks()
            ready = all(check.ok for check in checks.values())
            body = {"ready": ready, "checks": {n: {"ok": c.ok, "reason": c.reason} for n, c in checks.items()}}
            status = "200 OK" if ready else "503 Service Unavailable"
            start_response(status, [("Content-Type", "application/json")])
            return [json.dumps(body, indent=1).encode() + b"\n"]
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"try /healthz/live, /healthz/ready or /metrics\n"]

    return app


class OpsServer(HttpServer):
    """A part that serves the ops port with two threads; a taken port is a ConfigError and ends the start."""

    def __init__(self, settings: OpsSettings, health: Health, registry: CollectorRegistry) -> None:
        super().__init__(
            "ops",
            ops_app(health, registry),
            host=settings.host,
            port=_free(settings) if settings.or_any else settings.port,
            threads=2,
            option="ops_host, ops_port",
            server_name="ops",
            grace=1,
        )


def _free(settings: OpsSettings) -> int:
    """Return the port, or 0 if another process has it, because a node may run several copies of a daemon."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError:
            LOG.warning("ops_port is not set and port %s is in use: a free port is used", settings.port)
            return 0
    return settings.port
