# SPDX-License-Identifier: Apache-2.0
"""cheroot as a part of a daemon: bounded threads, a port that is bound at once, a stop that lets answers out."""

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final

from cheroot import wsgi

from bridge.runtime.http_request import Connection
from bridge.runtime.settings import ConfigError

LOG = logging.getLogger(__name__)

StartResponse = Callable[..., Any]
WsgiApp = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]

_MAX_HEADER: Final = 64 * 1024  # a Keystone token is below 10 KiB in every format that was ever in use
_BACKLOG: Final = 128
_IDLE_CONNECTIONS: Final = 100  # clients keep connections; above this an answer closes its own


class _Server(wsgi.Server):
    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        """cheroot's own errors: a client that went away, broken TLS. Of the message its first line."""
        LOG.log(level, "http server: %s", msg.splitlines()[0] if msg else "error", exc_info=traceback)


class HttpServer:
    """Serves a WSGI application. Binds in the constructor: a taken port is a ConfigError and ends the start.

    `option` is the name of the setting to change, for that error's sentence; `grace` the seconds a request that is
    being answered may take after `stop`; `timeout` the seconds a client may stay silent within a request.
    """

    def __init__(
        self,
        name: str,
        app: WsgiApp,
        *,
        host: str,
        port: int,
        threads: int,
        option: str,
        server_name: str,
        grace: int = 10,
        timeout: int = 30,
    ) -> None:
        self._name = name
        self._server = _Server(
            (host, port),
            app,
            numthreads=threads,
            max=threads,
            server_name=server_name,
            request_queue_size=_BACKLOG,
            timeout=timeout,
            shutdown_timeout=grace,
        )
        self._server.ConnectionClass = Connection
        self._server.version = server_name
        self._server.max_request_header_size = _MAX_HEADER
        self._server.keep_alive_conn_limit = _IDLE_CONNECTIONS
        # cheroot's workers are no daemon threads: begun here, they would keep a process alive whose start fails
        self._threads = threads
        self._server.requests.min = 0
        try:
            self._server.prepare()
        except OSError as ex:
            raise ConfigError(f"{option}: {host}:{port} cannot be used: {ex}") from ex
        self._thread = threading.Thread(target=self._server.serve, name=name, daemon=True)
        self._stopper = threading.Thread(target=self._server.stop, name=f"{name}-stop", daemon=True)

    def __repr__(self) -> str:
        return f"<{self._name} server>"

    @property
    def port(self) -> int:
        """The port in use, also where a free one was picked."""
        return int(self._server.bind_addr[1])

    @property
    def url(self) -> str:
        """Where it listens, without a trailing slash."""
        host = self._server.bind_addr[0]
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def start(self) -> None:
        """Serve."""
        self._server.requests.grow(self._threads)
        self._thread.start()
        LOG.info("%s listens at %s", self._name, self.url)

    def stop(self) -> None:
        """Take no more requests; those being answered get the grace time."""
        self._stopper.start()

    def join(self, seconds: float) -> bool:
        """Wait until the last answer is out."""
        self._stopper.join(seconds)
        if self._thread.ident is not None:
            self._thread.join(0.1 if self._stopper.is_alive() else 1.0)
        return not self._thread.is_alive() and not self._stopper.is_alive()
