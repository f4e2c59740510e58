# SPDX-License-Identifier: Apache-2.0
"""The API for the operator's own WSGI server: `bridge.wsgi:application` under uWSGI, gunicorn or mod_wsgi.

The configuration file is $EXTEND_BRIDGE_CONFIG, by default /etc/extend-bridge/extend-bridge.conf. Files and
connections are opened at the first request, because every forked worker needs connections of its own.
"""

import bridge.runtime.threads  # noqa: F401 - first, because other imports may choose another backend

# isort: split
import atexit
import json
import logging
import os
import threading
from collections.abc import Iterable
from typing import Any, Final

from bridge.api.settings import API_GROUPS, api_settings
from bridge.api.wiring import build_wsgi
from bridge.core.errors import ConfigError
from bridge.http.server import StartResponse, WsgiApp
from bridge.runtime import config
from bridge.runtime.audit_heads import read_key
from bridge.runtime.metrics import new_registry
from bridge.runtime.process import Process
from bridge.runtime.tracing import open_spans

LOG = logging.getLogger(__name__)

CONFIG_VARIABLE: Final = "EXTEND_BRIDGE_CONFIG"
DEFAULT_CONFIG: Final = "/etc/extend-bridge/extend-bridge.conf"
_PROG: Final = "extend-bridge-api"


class Application:
    """The WSGI application, built at the first request.

    An unusable configuration is answered with 503, and the next request tries again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._app: WsgiApp | None = None

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer a WSGI request; build the application at the first request."""
        app, why = self._app, ""
        if app is None:
            with self._lock:
                try:
                    app = self._app = self._app or _build()
                except ConfigError as ex:
                    why = str(ex)
        if app is None:
            LOG.error("%s: %s", _PROG, why)
            return _unusable(start_response)
        return app(environ, start_response)


def _build() -> WsgiApp:
    path = os.environ.get(CONFIG_VARIABLE, DEFAULT_CONFIG)
    conf = config.load(_PROG, API_GROUPS, ["--config-file", path], description="The API under a WSGI server.")
    settings = config.read(conf, api_settings)
    config.setup_logging(conf, _PROG)
    process = Process(
        conf=conf,
        registry=new_registry("api"),
        audit_file=conf.audit.file,
        audit_journald=conf.audit.journald,
        audit_key=read_key(conf.audit.key_file),
        audit_heads_interval=conf.audit.heads_interval,
        spans=open_spans(conf.tracing.otlp_endpoint, _PROG),
    )
    atexit.register(process.close_audit)
    return build_wsgi(settings, process)


def _unusable(start_response: StartResponse) -> Iterable[bytes]:
    message = "The service is not configured; its log says why."
    body = json.dumps({"serviceUnavailable": {"code": 503, "message": message}}).encode()
    start_response(
        "503 Service Unavailable",
        [
            ("Content-Type", "application/json; charset=UTF-8"),
            ("Content-Length", str(len(body))),
            ("Retry-After", "30"),
        ],
    )
    return [body]


application = Application()
