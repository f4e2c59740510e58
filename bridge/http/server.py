# SPDX-License-Identifier: Apache-2.0
"""The cheroot server as a part of a daemon, with bounded threads, connections and memory.

The port is bound at once, and the stop is orderly.
"""

import ctypes
import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final

from cheroot import wsgi
from cheroot.connections import ConnectionManager

from bridge.core.errors import ConfigError
from bridge.http.connection import Arrived, Connection
from bridge.http.tls import TlsAdapter, TlsSettings
from bridge.http.workers import RequestWorkers

LOG = logging.getLogger(__name__)

StartResponse = Callable[..., Any]
WsgiApp = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]

_BACKLOG: Final = 128
_IDLE_SECONDS: Final = 60  # longer than clients keep an idle connection
_IDLE_CONNECTIONS: Final = 100  # clients keep connections; above this an answer closes its connection
_HELD_BYTES: Final = 12 * 1024 * 1024  # of requests that are coming and answers that are being taken
_TRIM_ABOVE: Final = 2 * 1024 * 1024  # bytes held once, after which memory is given back
_RESERVED_THREADS: Final = 2


def trim() -> None:
    """Return freed memory to the system, where the C library supports that."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class _ConnectionLoop(ConnectionManager):
    """The loop of cheroot, which here waits for writing as well, and ends connections at their deadline."""

    def __init__(self, server: "_Server") -> None:
        super().__init__(server)
        self._server = server
        self._events: Any = self._selector  # type: ignore[attr-defined] # not in cheroot's stubs

    def put(self, conn: Connection) -> None:
        """Wait for the connection's next event."""
        conn.last_used = time.time()
        self._events.register(conn.socket.fileno(), conn.interest, data=conn)

    def _expire(self, threshold: float) -> None:
        """Close overdue connections, by deadlines instead of cheroot's threshold; called every half second."""
        del threshold
        now = time.monotonic()
        overdue = [
            (fd, conn) for fd, conn in self._events.connections if conn is not self._server and conn.deadline < now
        ]
        for fd, conn in overdue:
            self._events.unregister(fd)
            conn.expire()
            conn.close()
        self._server.give_back()


class _Server(wsgi.Server):
    """The cheroot server, whose workers get whole requests only, and whose connections and memory are bounded.

    Above `max_connections` or `_HELD_BYTES` the client that has been slow for longest is disconnected. So slow
    clients push out each other, and never a client that sends and reads at once.
    """

    request_timeout = 30.0
    max_connections = 100
    reserved_paths: frozenset[bytes] = frozenset()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lock = threading.Lock()
        self._open: set[Connection] = set()
        self._slow: dict[Connection, int] = {}
        """Clients in the middle of a request or an answer, by age, and the bytes held for each."""
        self._held = 0
        self._most = 0

    def prepare(self) -> None:
        """Bind the port, and replace cheroot's loop by `_ConnectionLoop`."""
        super().prepare()
        self._connections: ConnectionManager
        self._connections.close()
        self._connections = _ConnectionLoop(self)

    def opened(self, conn: Connection) -> None:
        """Count a connection that was accepted."""
        with self._lock:
            self._open.add(conn)
            victim = self._victim() if len(self._open) > self.max_connections else None
        if victim is not None:
            victim.cut()

    def closed(self, conn: Connection) -> None:
        """Count a connection that has ended."""
        with self._lock:
            self._open.discard(conn)
            self._held -= self._slow.pop(conn, 0)

    def put_conn(self, conn: Connection) -> None:
        """Wait for the connection's next event, within the bounds."""
        with self._lock:
            self._held -= self._slow.pop(conn, 0) if conn.began is None else self._slow.get(conn, 0)
            victims = []
            if conn.began is not None:
                self._slow[conn] = conn.held
                self._held += conn.held
                self._most = max(self._most, self._held)
            while self._held > _HELD_BYTES and (victim := self._victim()) is not None:
                victims.append(victim)
        for victim in victims:
            victim.cut()
        super().put_conn(conn)

    def process_conn(self, conn: Connection) -> None:
        """Advance a connection that is new or readable; a whole request goes to a worker."""
        arrived = conn.advance()
        with self._lock:
            too_many = len(self._open) > self.max_connections + _BACKLOG
            if arrived is Arrived.WHOLE:
                self._held -= self._slow.pop(conn, 0)
        if arrived is Arrived.GONE or too_many:
            conn.close()
        elif arrived is Arrived.PART:
            self.put_conn(conn)
        else:
            self.requests.put(conn)

    def give_back(self) -> None:
        """Return freed memory to the system after a peak of clients, because the C library would keep it."""
        with self._lock:
            if self._most < _TRIM_ABOVE or self._held > _TRIM_ABOVE // 2:
                return
            self._most = 0
        trim()

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        """Log the first line of cheroot's own errors, such as a client that disconnected."""
        LOG.log(level, "http server: %s", msg.splitlines()[0] if msg else "error", exc_info=traceback)

    def _victim(self) -> Connection | None:
        """Remove and return the client that has been slow for longest."""
        conn = next(iter(self._slow), None)
        if conn is not None:
            self._held -= self._slow.pop(conn)
        return conn


class HttpServer:
    """A server of a WSGI application. The constructor binds: a taken port is a ConfigError and ends the start.

    `option` is the name of the setting to change, for the text of that error. `grace`: seconds that a request in
    work may take after `stop`. `timeout`: seconds in which a whole request must come, and in which its answer must
    be taken. `reserved`: the paths that have their own threads.
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
        reserved: Iterable[str] = (),
        tls: TlsSettings | None = None,
        tls_option: str = "",
    ) -> None:
        self._name = name
        self._tls = TlsAdapter(tls, option=tls_option) if tls is not None else None
        self._server = _Server(
            (host, port),
            app,
            server_name=server_name,
            request_queue_size=_BACKLOG,
            timeout=_IDLE_SECONDS,
            shutdown_timeout=grace,
        )
        self._server.reserved_paths = frozenset(path.encode() for path in reserved)
        self._workers = RequestWorkers(
            self._server, threads, _RESERVED_THREADS if self._server.reserved_paths else 0
        )
        self._server.requests = self._workers
        self._server.ConnectionClass = Connection
        self._server.ssl_adapter = self._tls
        self._server.version = server_name
        self._server.max_request_header_size = Connection.limits.head
        self._server.request_timeout = timeout
        self._server.max_connections = max_connections
        self._server.keep_alive_conn_limit = _IDLE_CONNECTIONS
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
        """The port in use, also where the system picked a free port."""
        return int(self._server.bind_addr[1])

    @property
    def url(self) -> str:
        """The address of the server, without a trailing slash."""
        host = self._server.bind_addr[0]
        scheme = "https" if self._tls is not None else "http"
        return f"{scheme}://[{host}]:{self.port}" if ":" in host else f"{scheme}://{host}:{self.port}"

    def start(self) -> None:
        """Begin to serve requests."""
        self._workers.begin()
        self._thread.start()
        LOG.info("%s listens at %s", self._name, self.url)

    def reload(self) -> None:
        """Read the certificate files again."""
        if self._tls is not None:
            self._tls.reload()

    def stop(self) -> None:
        """Stop taking requests; requests in work get the grace time."""
        self._stopper.start()

    def join(self, seconds: float) -> bool:
        """Wait until the last answer is sent; return False where that took longer than `seconds`."""
        self._stopper.join(seconds)
        if self._thread.ident is not None:
            self._thread.join(0.1 if self._stopper.is_alive() else 1.0)
        return not self._thread.is_alive() and not self._stopper.is_alive()
