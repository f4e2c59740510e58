# SPDX-License-Identifier: Apache-2.0
"""The wiring of the API process."""

import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from bridge.api.app import build as build_app
from bridge.api.auth import guarded, strategy
from bridge.api.healthcheck import PATH as HEALTHCHECK
from bridge.api.identity import AsksService, Authenticator
from bridge.api.policy import OsloPolicy
from bridge.api.settings import ApiSettings, refuse_open_door
from bridge.http.server import HttpServer, StartResponse, WsgiApp
from bridge.journal.accept import Journal, open_journal
from bridge.journal.audit_heads import AuditHeads
from bridge.journal.watch import DatabaseCheck, DatabaseProbe
from bridge.runtime.daemon import Part, Supervised
from bridge.runtime.health import STARTING, Health, InFlight
from bridge.runtime.metrics import ApiMetrics
from bridge.runtime.process import Process

DATABASE: Final = "api.database"
_REQUESTS: Final = "api.requests"
_KEYSTONE: Final = "api.keystone"
_KEYSTONE_EVERY: Final = 10.0
_KEYSTONE_GOOD_FOR: Final = 25.0


def build(settings: ApiSettings, process: Process, *, auth: Authenticator | None = None) -> list[Part]:
    """Build the server and the journal probe; raises ConfigError. `auth` replaces the strategy of the settings."""
    refuse_open_door(settings, built_in=True)
    check = DatabaseCheck(process.health, DATABASE)
    journal = open_journal(settings.journal, results=check)
    probe = DatabaseProbe(journal.database, check, sync=settings.journal.sync_on_startup)
    asked = auth or strategy(settings, process.conf)
    caller = auth or guarded(asked, settings)
    app = _application(settings, process, journal, caller, ping=partial(_last_word, process.health, journal.ping))
    requests = InFlight()
    process.health.due(_REQUESTS, requests.oldest, what="request")
    probes = [_keystone_probe(asked, process.health)] if isinstance(asked, AsksService) else []
    return [
        probe.part(DATABASE, process.health),
        *probes,
        HttpServer(
            "api",
            _counted(app, requests),
            host=settings.bind_host,
            port=settings.bind_port,
            threads=settings.threads,
            option="[api] bind_host, bind_port",
            server_name="extend-bridge-api",
            timeout=settings.request_timeout,
            max_connections=settings.max_connections,
            reserved=(HEALTHCHECK,),
            tls=settings.tls,
            tls_option="[api] cert_file, key_file",
        ),
    ]


def build_wsgi(settings: ApiSettings, process: Process) -> WsgiApp:
    """Return the application alone, for the operator's own WSGI server; raises ConfigError."""
    refuse_open_door(settings, built_in=False)
    journal = open_journal(settings.journal)
    caller = guarded(strategy(settings, process.conf), settings)
    return _application(settings, process, journal, caller, ping=journal.ping)


def _last_word(health: Health, ping: Callable[[], str | None]) -> str | None:
    """Return the reason of the journal's failed check, else None; ask the journal before the first check."""
    check = health.checks()[DATABASE]
    if check == STARTING:
        return ping()
    return None if check.ok else check.reason


def _keystone_probe(service: AsksService, health: Health) -> Supervised:
    """Return the part that updates the readiness check of Keystone."""
    health.expect(_KEYSTONE)

    def body(stop: threading.Event) -> None:
        while not stop.is_set():
            wrong = service.check()
            if wrong is None:
                health.ok(_KEYSTONE, good_for=_KEYSTONE_GOOD_FOR)
            else:
                health.bad(_KEYSTONE, wrong)
            stop.wait(_KEYSTONE_EVERY)

    return Supervised(_KEYSTONE, body, health)


def _counted(app: WsgiApp, in_flight: InFlight) -> WsgiApp:
    """Wrap the application to count its requests in flight."""

    def counted(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        with in_flight.one():
            return app(environ, start_response)

    return counted


def _application(
    settings: ApiSettings,
    process: Process,
    journal: Journal,
    auth: Authenticator,
    *,
    ping: Callable[[], str | None],
) -> WsgiApp:
    return build_app(
        settings,
        journal,
        ApiMetrics(process.registry),
        process.audit("api", AuditHeads(journal.database).keep),
        auth=auth,
        policy=OsloPolicy(process.conf),
        ping=ping,
    )
