# SPDX-License-Identifier: Apache-2.0
"""The ops port of each daemon: /healthz/live, /healthz/ready, /metrics. Up before anything it depends on."""

import json
import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

from cheroot import wsgi
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from bridge.runtime.health import Health
from bridge.runtime.settings import ConfigError, OpsSettings

LOG = logging.getLogger(__name__)
StartResponse = Callable[[str, list[tuple[str, str]]], Any]


def ops_app(
    health: Health, registry: CollectorRegistry
) -> Callable[[dict[str, Any], StartResponse], Iterable[bytes]]:
    """The WSGI application: 200 or 503 with each check and its reason, and Prometheus' text format."""

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            start_response("200 OK", [("Content-Type", "text/plain; version=0.0.4; charset=utf-8")])
            return [generate_latest(registry)]
        if path == "/healthz/live":
            start_response("200 OK", [("Content-Type", "application/json")])
            return [b'{"live": true}\n']
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


class OpsServer:
    """A part that serves the ops port with two threads. Binding happens in the constructor: a taken port is a
    configuration error and ends the start with one line."""

    def __init__(self, settings: OpsSettings, health: Health, registry: CollectorRegistry) -> None:
        self._server = wsgi.Server(
            (settings.host, settings.port), ops_app(health, registry), numthreads=2, server_name="ops"
        )
        try:
            self._server.prepare()
        except OSError as ex:
            raise ConfigError(f"the ops port {settings.host}:{settings.port} cannot be used: {ex}") from ex
        self._thread = threading.Thread(target=self._server.serve, name="ops", daemon=True)

    @property
    def port(self) -> int:
        """The port in use, also where a free one was picked."""
        return int(self._server.bind_addr[1])

    def start(self) -> None:
        """Serve."""
        self._thread.start()
        LOG.info("health and metrics at http://%s:%d/", self._server.bind_addr[0], self.port)

    def stop(self) -> None:
        """Close the port."""
        self._server.stop()

    def join(self, seconds: float) -> bool:
        """Wait for the server thread."""
        self._thread.join(seconds)
        return not self._thread.is_alive()
