# SPDX-License-Identifier: Apache-2.0
"""AMQP connections whose every wait ends: py-amqp's, with one deadline over each operation.

py-amqp restarts its timeout with every byte it reads, and waits without a timeout for most answers. A frozen broker
then holds the caller until a person restarts it. A polite close waits on the very socket that is dead. Here an
operation has one deadline. When the deadline passes, the socket is dropped and not used again.
"""

import select
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import amqp.exceptions
from amqp import spec
from amqp.transport import SSLTransport, TCPTransport
from kombu.transport import pyamqp

from bridge.runtime.bus_url import BusHost, BusUrl, NotConnectedError, connect_failure

OPERATION_LIMIT: Final = 10.0
"""Seconds that an answer of the broker may take if the caller names no limit."""
CONNECT_LIMIT: Final = 5.0
"""Seconds from the first packet to an open connection, for each host."""
_CLOSE_LIMIT: Final = 2.0
_SHORTEST: Final = 0.001  # seconds; a timeout of 0 would make the socket non-blocking in the middle of a frame

SOCKET_SETTINGS: Final[Mapping[str, int]] = {
    "TCP_USER_TIMEOUT": 20_000,  # milliseconds that sent bytes may stay without an acknowledgement
    "TCP_KEEPIDLE": 10,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 2,
}


class ConnectionBlockedError(amqp.exceptions.RecoverableConnectionError):
    """A broker that takes no messages from this connection: an alarm of memory or disk. The text is its reason."""


class _DeadlineTransport:
    """The clock of one socket. `end`: the moment at which every read and write under way gives up."""

    end: float | None = None
    sock: Any
    connected: bool

    def left(self) -> float:
        """Return the seconds until the deadline, or the ordinary limit if no deadline is set."""
        return OPERATION_LIMIT if self.end is None else self.end - time.monotonic()

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Bound everything inside by `seconds`, and by a deadline that is set already."""
        before, end = self.end, time.monotonic() + seconds
        self.end = end if before is None else min(before, end)
        try:
            yield
        finally:
            self.end = before

    @contextmanager
    def having_timeout(self, timeout: float | None) -> Iterator[Any]:
        """Bound one read of py-amqp; a socket without data raises TimeoutError."""
        with self.within(OPERATION_LIMIT if timeout is None else timeout):
            try:
                yield self.sock
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError) as ex:
                raise TimeoutError from ex


class _TcpTransport(_DeadlineTransport, TCPTransport):
    """A plain socket, each operation of which has a deadline.

    The socket never blocks. A frame takes three reads, and a timeout around each costs more than the read itself.
    Only a read or write that cannot go on waits.
    """

    def _setup_transport(self) -> None:
        super()._setup_transport()
        self.sock.settimeout(0)
        self._quick_recv = self._receive
        self._write = self._send

    def _receive(self, size: int) -> bytes:
        while True:
            try:
                data: bytes = self.sock.recv(size)
            except BlockingIOError:
                self._wait(select.POLLIN)
            else:
                return data

    def _send(self, frame: Any) -> None:
        """Write a whole frame; a partial frame leaves a connection that cannot be used."""
        left = memoryview(frame)
        while left:
            try:
                left = left[self.sock.send(left) :]
            except BlockingIOError:
                self._wait(select.POLLOUT)

    def _wait(self, event: int) -> None:
        """Wait until the socket can go on; raises TimeoutError at the deadline."""
        look = select.poll()
        look.register(self.sock, event)
        if not look.poll(max(self.left(), 0) * 1000):
            raise TimeoutError("the broker was silent for too long")


class _TlsTransport(_DeadlineTransport, SSLTransport):
    """A TLS socket, verified by the context of its bus. Its close sends nothing, because the peer may be frozen."""

    def _setup_transport(self) -> None:
        context: ssl.SSLContext = self.sslopts["context"]
        self.sock.settimeout(max(self.left(), _SHORTEST))
        self.sock = context.wrap_socket(self.sock, server_hostname=self.host)
        self._quick_recv = self._receive

    def _receive(self, size: int) -> bytes:
        """Read within the deadline. Data that has arrived already is read even after the deadline."""
        left = self.left()
        if left <= 0 and not _readable(self.sock):
            raise TimeoutError("the broker sent nothing in time")
        self.sock.settimeout(max(left, _SHORTEST))
        data: bytes = self.sock.read(size)
        return data

    def _shutdown_transport(self) -> None:
        return

    def _write(self, s: Any) -> None:
        left = memoryview(s)
        while left:
            self.sock.settimeout(max(self.left(), _SHORTEST))
            left = left[self.sock.write(left) :]

    def write(self, s: Any) -> None:
        """Write a whole frame; a partial frame leaves a connection that cannot be used."""
        super().write(s)


class BoundedChannel(pyamqp.Channel):
    """A channel whose synchronous methods end."""

    def wait(self, method: Any, callback: Any = None, timeout: float | None = None, **more: Any) -> Any:
        """Wait for an answer of the broker; drop the connection if none comes in time."""
        connection = self.connection
        if connection is None:
            return super().wait(method, callback=callback, timeout=timeout, **more)
        with connection.answering(timeout):
            return super().wait(method, callback=callback, timeout=timeout, **more)


class BoundedConnection(pyamqp.Connection):
    """A connection to one host.

    `blocked`: why the broker takes no messages from this connection now, else None. `publishing`: raise as soon as
    the connection is blocked.
    """

    Channel = BoundedChannel
    # py-amqp reads the method without its argument, which is the reason
    _METHODS: Final = {
        **pyamqp.Connection._METHODS,  # noqa: SLF001 - a subclass may
        spec.Connection.Blocked: spec.method(spec.Connection.Blocked, "s"),
    }

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.blocked: str | None = None
        self.publishing = False
        self._connect_end: float | None = None

    def Transport(self, host: str, connect_timeout: float, ssl: Any = False, *_: Any, **more: Any) -> Any:  # noqa: N802 - py-amqp's name
        """Return the socket to connect; the deadline of the connect covers TLS and the greeting."""
        if ssl:
            transport: Any = _TlsTransport(
                host, connect_timeout=connect_timeout, ssl=ssl, socket_settings=more.get("socket_settings")
            )
        else:
            transport = _TcpTransport(
                host, connect_timeout=connect_timeout, socket_settings=more.get("socket_settings")
            )
        transport.end = self._connect_end
        return transport

    def connect(self, callback: Any = None) -> Any:
        """Connect within the limit, or close everything."""
        self._connect_end = time.monotonic() + (self.connect_timeout or CONNECT_LIMIT)
        try:
            done = super().connect(callback)
        except BaseException:
            self.collect()
            raise
        self._transport.end = None
        return done

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Bound every read and write inside by one deadline."""
        transport = self._transport
        if transport is None:
            yield
            return
        with transport.within(seconds):
            yield

    @contextmanager
    def answering(self, timeout: float | None) -> Iterator[None]:
        """Bound the wait for an answer. A missing answer leaves the connection in an unknown state, so drop it."""
        try:
            with self.within(OPERATION_LIMIT if timeout is None else timeout):
                yield
        except OSError:
            if not self.blocked:
                self.collect()
            raise

    def wait(self, method: Any, callback: Any = None, timeout: float | None = None, **more: Any) -> Any:
        """Wait for an answer on channel 0, like BoundedChannel."""
        with self.answering(timeout):
            return super().wait(method, callback=callback, timeout=timeout, **more)

    def drain_events(self, timeout: float | None = None) -> None:
        """Read until one method is complete. A frame that drips is read on in the next call."""
        with self.within(OPERATION_LIMIT if timeout is None else timeout):
            super().drain_events(timeout)

    def heartbeat_tick(self, rate: int = 2) -> None:
        """Send a heartbeat when one is due; drop the connection of a broker that was silent for two heartbeats."""
        try:
            super().heartbeat_tick(rate)
        except amqp.exceptions.ConnectionForced as ex:
            self.collect()
            silent = time.monotonic() - self.last_heartbeat_received
            raise amqp.exceptions.ConnectionForced(f"the broker was silent for {silent:.0f} s") from ex
        except OSError:
            self.collect()
            raise

    def close(self, *arguments: Any, **named: Any) -> Any:
        """Send a close if the broker listens; drop the socket in any case."""
        try:
            with self.within(_CLOSE_LIMIT):
                return super().close(*arguments, **named)
        finally:
            self.collect()

    def collect(self) -> None:
        """Drop the socket and forget every channel, without a message to the broker."""
        if self._transport is not None or self.channels is not None:
            super().collect()

    def _on_blocked(self, reason: str = "") -> None:
        self.blocked = reason or "no reason given"
        if self.publishing:
            raise ConnectionBlockedError(self.blocked)

    def _on_unblocked(self) -> None:
        self.blocked = None


class BoundedTransport(pyamqp.Transport):
    """The transport of kombu: tries each host of a bus until one accepts the connection."""

    Connection = BoundedConnection

    def establish_connection(self) -> BoundedConnection:
        """Connect; raises NotConnectedError with the error of each host."""
        options = self.client.transport_options
        bus: BusUrl = options["bus"]
        failures: list[tuple[BusHost, str]] = []
        for host in bus.shuffled():
            connection = BoundedConnection(
                host=host.address,
                userid=host.username,
                password=host.password,
                login_method=bus.login_method,
                virtual_host=bus.vhost,
                ssl={"context": bus.tls.context()} if bus.tls is not None else False,
                connect_timeout=CONNECT_LIMIT,
                heartbeat=self.client.heartbeat,
                confirm_publish=True,
                client_properties={"connection_name": options["name"]},
                socket_settings=_settings(),
            )
            connection.client = self.client
            try:
                connection.connect()
            except (OSError, amqp.exceptions.AMQPError) as ex:
                failures.append((host, connect_failure(bus, host, ex)))
            else:
                return connection
        raise NotConnectedError(failures)


def _settings() -> dict[int, int]:
    return {getattr(socket, name): value for name, value in SOCKET_SETTINGS.items() if hasattr(socket, name)}


def _readable(sock: Any) -> bool:
    if isinstance(sock, ssl.SSLSocket) and sock.pending():
        return True
    look = select.poll()
    look.register(sock, select.POLLIN)
    return bool(look.poll(0))
