# SPDX-License-Identifier: Apache-2.0
"""cheroot as a part of a daemon: bounded threads, a port that is bound at once, a stop that lets answers out."""

import logging
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final

from cheroot import wsgi

from bridge.core.errors import ConfigError
from bridge.http.connection import Arrived, Connection
from bridge.http.tls import TlsAdapter, TlsSettings

LOG = logging.getLogger(__name__)

StartResponse = Callable[..., Any]
WsgiApp = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]

_BACKLOG: Final = 128
_IDLE_SECONDS: Final = 60  # longer than clients keep a connection they do not use
_IDLE_CONNECTIONS: Final = 100  # clients keep connections; above this an answer closes its own


class _Server(wsgi.Server):
    """cheroot, whose workers get whole requests only, and whose connections are bounded.

    Above `max_connections` the one that has been sending its request longest makes room, so that slow senders push
    each other out and not those who send at once.
    """

    request_timeout = 30.0
    max_connections = 100

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lock = threading.Lock()
        self._open: set[Connection] = set()
        self._coming: dict[Connection | None, None] = {}  # by age: these have begun a request that is not whole

    def opened(self, conn: Connection) -> None:
        """A connection was accepted."""
        with self._lock:
            self._open.add(conn)
            crowded = len(self._open) > self.max_connections
            victim = next(iter(self._coming), None) if crowded else None
            self._coming.pop(victim, None)
        _cut_off(victim)

    def closed(self, conn: Connection) -> None:
        """A connection has ended."""
        with self._lock:
            self._open.discard(conn)
            self._coming.pop(conn, None)

    def process_conn(self, conn: Connection) -> None:
        """Something has come, or a connection is new: to a worker with it once the request is whole."""
        arrived = conn.receive(self.request_timeout)
        with self._lock:
            overdue = next(iter(self._coming), None)
            if overdue is conn or overdue is None or not overdue.late(self.request_timeout):
                overdue = None
            self._coming.pop(overdue, None)
            if arrived is Arrived.PART and conn.began is not None:
                self._coming.setdefault(conn)
            else:
                self._coming.pop(conn, None)
            too_many = len(self._open) > self.max_connections + _BACKLOG
        if arrived is Arrived.GONE or too_many:
            conn.close()
        elif arrived is Arrived.PART:
            self.put_conn(conn)
        else:
            super().process_conn(conn)
        if overdue is not None:
            overdue.too_slow()
            _cut_off(overdue)

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        """cheroot's own errors: a client that went away. Of the message its first line."""
        LOG.log(level, "http server: %s", msg.splitlines()[0] if msg else "error", exc_info=traceback)


def _cut_off(conn: Connection | None) -> None:
    """End a connection that is waited for: the loop then reads its end and closes it."""
    if conn is not None:
        with suppress(OSError):
            conn.socket.shutdown(socket.SHUT_RDWR)


class HttpServer:
    """Serves a WSGI application. Binds in the constructor: a taken port is a ConfigError and ends the start.

    `option` is the name of the setting to change, for that error's sentence; `grace` the seconds a request that is
    being answered may take after `stop`; `timeout` the seconds in which a request has to come as a whole, and in
    which its answer has to be taken.
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
        max_connections: int = 100,
        tls: TlsSettings | None = None,
        tls_option: str = "",
    ) -> None:
        self._name = name
        self._tls = TlsAdapter(tls, option=tls_option) if tls is not None else None
        self._server = _Server(
            (host, port),
            app,
            numthreads=threads,
            max=threads,
            server_name=server_name,
            request_queue_size=_BACKLOG,
            timeout=_IDLE_SECONDS,
            shutdown_timeout=grace,
        )
        self._server.ConnectionClass = Connection
        self._server.ssl_adapter = self._tls
        self._server.version = server_name
        self._server.max_request_header_size = Connection.limits.head
        self._server.request_timeout = timeout
        self._server.max_connections = max_connections
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
        scheme = "https" if self._tls is not None else "http"
        return f"{scheme}://[{host}]:{self.port}" if ":" in host else f"{scheme}://{host}:{self.port}"

    def start(self) -> None:
        """Serve."""
        self._server.requests.grow(self._threads)
        self._thread.start()
        LOG.info("%s listens at %s", self._name, self.url)

    def reload(self) -> None:
        """Read the certificate again."""
        if self._tls is not None:
            self._tls.reload()

    def stop(self) -> None:
        """Take no more requests; those being answered get the grace time."""
        self._stopper.start()

    def join(self, seconds: float) -> bool:
        """Wait until the last answer is out."""
        self._stopper.join(seconds)
        if self._thread.ident is not None:
            self._thread.join(0.1 if self._stopper.is_alive() else 1.0)
        return not self._thread.is_alive() and not self._stopper.is_alive()
