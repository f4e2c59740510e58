# SPDX-License-Identifier: Apache-2.0
"""The API process, wired."""

from bridge.api.app import build as build_app
from bridge.api.auth import authenticator
from bridge.api.healthcheck import PATH as HEALTHCHECK
from bridge.api.healthcheck import journal_probe
from bridge.api.identity import Authenticator
from bridge.api.policy import OsloPolicy
from bridge.api.settings import ApiSettings, refuse_open_door
from bridge.http.server import HttpServer, WsgiApp
from bridge.journal import migrate
from bridge.journal.accept import Journal, open_journal
from bridge.runtime.daemon import Part
from bridge.runtime.metrics import ApiMetrics
from bridge.runtime.process import Process


def build(settings: ApiSettings, process: Process, *, auth: Authenticator | None = None) -> list[Part]:
    """Built-in server and journal probe; raises ConfigError. `auth` replaces the strategy of the settings."""
    refuse_open_door(settings, built_in=True)
    journal = open_journal(settings.journal)
    app = _application(settings, process, journal, auth)
    prepare = (lambda: migrate.upgrade(journal.database)) if settings.journal.sync_on_startup else None
    return [
        journal_probe(journal.ping, process.health, prepare=prepare),
        HttpServer(
            "api",
            app,
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
    """The application alone, for a WSGI server of the operator's; raises ConfigError."""
    refuse_open_door(settings, built_in=False)
    return _application(settings, process, open_journal(settings.journal), None)


def _application(settings: ApiSettings, process: Process, journal: Journal, auth: Authenticator | None) -> WsgiApp:
    return build_app(
        settings,
        journal,
        ApiMetrics(process.registry),
        process.audit("api"),
        auth=auth or authenticator(settings, process.conf),
        policy=OsloPolicy(process.conf),
        ping=journal.ping,
    )
