# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy with faults, for what a network does beside breaking: freeze, lose, drip, delay, reset, refuse.

    with Proxy(rabbit.port) as proxy:
        url = proxy.url(rabbit.url)        # the same URL through the proxy
        proxy.freeze()                     # connections that are open now: open, and nothing moves on them
        proxy.freeze(Which.ALL)            # those and all later ones
        proxy.heal()                       # everything moves again, what was held back included

A later fault replaces the earlier one on the connections that it names. Every method returns after the fault is in
force. Without `which` a fault is for the connections that are open now: a virtual address that moved, a firewall
that dropped its state, a host without power. The kernel still acknowledges what a frozen connection is sent until
its buffers are full; no ACK at all needs nftables.
"""

import asyncio
import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from tests.lab.ports import steady_port
from tests.lab.waiting import until

T = TypeVar("T")

Address = int | tuple[str, int] | Path
"""A port of loopback, host and port, or a Unix socket."""

_CHUNK: Final = 65_536
_CONNECT_SECONDS: Final = 5.0
_CALL_SECONDS: Final = 30.0
_DRIP_EVERY: Final = 0.05
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER that makes close() send RST instead of FIN."""


class Which(Enum):
    """The connections that a fault is for."""

    OLD = "old"  # open now
    NEW = "new"  # accepted from now on
    ALL = "all"  # both


class Way(Enum):
    """The direction that a fault is for."""

    UP = "up"  # client to server
    DOWN = "down"  # server to client
    BOTH = "both"


class _Mode(Enum):
    """The treatment of bytes."""

    PASS = "pass"  # handed on
    FREEZE = "freeze"  # not read: the sender's buffers fill, nothing is lost
    LOSE = "lose"  # read and thrown away


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """The condition of one direction of a connection."""

    mode: _Mode = _Mode.PASS
    delay: float = 0.0  # seconds before each piece is handed on
    rate: float | None = None  # bytes per second, None: as fast as they come


_CLEAR: Final = _Rule()

Look = Callable[["Link", Way, bytes], bytes]
"""Sees each piece before it is handed on, and returns what is handed on instead. Runs in the proxy's thread: it may
call the methods of the Link it is given, and must not block."""


class Link:
    """One connection through the proxy: client and server side, with a rule for each direction."""

    def __init__(self, number: int, client: socket.socket, server: socket.socket) -> None:
        self.number = number
        """Counts from 0 in the order of acceptance."""
        self.moved = {Way.UP: 0, Way.DOWN: 0}
        """Bytes handed on by direction."""
        self.open = True
        self._client = client
        self._server = server
        self._rules = {Way.UP: _CLEAR, Way.DOWN: _CLEAR}
        self._changed = asyncio.Event()
        self._pumps: asyncio.Future[list[None]] | None = None
        self._answers: set[asyncio.Task[None]] = set()

    def freeze(self, way: Way = Way.BOTH) -> None:
        """Move nothing from now on. For a Look; from a test's thread use Proxy.freeze."""
        self.set(_Rule(mode=_Mode.FREEZE), way)

    def lose(self, way: Way = Way.BOTH) -> None:
        """Throw away what comes from now on."""
        self.set(_Rule(mode=_Mode.LOSE), way)

    def heal(self) -> None:
        """Move everything again."""
        self.set(_CLEAR, Way.BOTH)

    def answer(self, data: bytes) -> None:
        """Send bytes to the client in the server's place. For a Look, between two whole messages only."""
        task = asyncio.get_running_loop().create_task(self._answer(data))
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def _answer(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().sock_sendall(self._client, data)

    def reset(self) -> None:
        """Break the connection on both sides with RST."""
        for side in (self._client, self._server):
            with contextlib.suppress(OSError):
                side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.open = False
        if self._pumps is not None:
            self._pumps.cancel()  # before the sockets are closed: the loop must not watch closed ones

    def set(self, rule: _Rule, way: Way) -> None:
        """Put a rule in force."""
        for one in (Way.UP, Way.DOWN) if way is Way.BOTH else (way,):
            self._rules[one] = rule
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def run(self, look: Look | None) -> None:
        """Move bytes both ways until both sides have ended."""
        both = [
            asyncio.ensure_future(self._pump(Way.UP, self._client, self._server, look)),
            asyncio.ensure_future(self._pump(Way.DOWN, self._server, self._client, look)),
        ]
        self._pumps = asyncio.gather(*both)
        try:
            await self._pumps
        except (OSError, ValueError, asyncio.CancelledError):
            pass
        finally:
            self.open = False
            for pump in both:
                pump.cancel()
            await asyncio.wait(both)
            self._client.close()
            self._server.close()

    async def _pump(self, way: Way, source: socket.socket, sink: socket.socket, look: Look | None) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._thawed(way)
            piece = await loop.sock_recv(source, _CHUNK)
            await self._thawed(way)  # the rule may have come while this piece was awaited: it stays here
            if self._rules[way].mode is _Mode.LOSE:
                if not piece:
                    return
                continue
            if piece and look is not None:
                piece = look(self, way, piece)
                await self._thawed(way)
                if not piece:
                    continue
            if not piece:
                sink.shutdown(socket.SHUT_WR)
                return
            await self._hand_on(way, sink, piece)

    async def _hand_on(self, way: Way, sink: socket.socket, piece: bytes) -> None:
        loop = asyncio.get_running_loop()
        if (delay := self._rules[way].delay) > 0:
            await self._pause(delay)
        while piece:
            await self._thawed(way)
            rule = self._rules[way]
            step = len(piece) if rule.rate is None else max(1, int(rule.rate * _DRIP_EVERY))
            part, piece = piece[:step], piece[step:]
            await loop.sock_sendall(sink, part)
            self.moved[way] += len(part)
            if rule.rate is not None:
                await self._pause(len(part) / rule.rate)

    async def _thawed(self, way: Way) -> None:
        while self._rules[way].mode is _Mode.FREEZE:
            await self._changed.wait()

    async def _pause(self, seconds: float) -> None:
        """Sleep, until the rules change at most."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)


class Proxy:
    """Listens on a port of loopback, or on a Unix socket, and hands on to `target`. One thread of its own."""

    def __init__(self, target: Address, *, listen: Address | None = None, look: Look | None = None) -> None:
        self.links: list[Link] = []
        """All connections so far, those that ended as well."""
        self.refused = 0
        """Connections that were turned away by `refuse()` or since the target was not there."""
        self._target: Address = target
        self._listen: Address = steady_port() if listen is None else listen
        self._look = look
        self._new = {Way.UP: _CLEAR, Way.DOWN: _CLEAR}
        self._refuses = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="proxy", daemon=True)
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> Self:
        """Listen; returns when connections are taken."""
        self._listener = _listener(self._listen)
        self._thread.start()
        self._call(self._begin)
        return self

    def close(self) -> None:
        """Break all connections and stop listening."""
        if not self._thread.is_alive():
            return
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(_CALL_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CALL_SECONDS)
        self._loop.close()

    @property
    def port(self) -> int:
        """The port of loopback it listens on."""
        if isinstance(self._listen, Path):
            raise TypeError(f"this proxy listens on {self._listen}")
        return self._listen if isinstance(self._listen, int) else self._listen[1]

    def url(self, url: str) -> str:
        """The URL of the target, through the proxy: its host and port are replaced, the rest is kept."""
        replaced, count = re.subn(
            r"(//(?:[^/@]*@)?)(?:\[[^\]]*\]|[^/:?,]+)(?::\d+)?", rf"\g<1>127.0.0.1:{self.port}", url, count=1
        )
        if not count:
            raise ValueError(f"no host in {url}")
        return replaced

    @property
    def accepted(self) -> int:
        """The number of connections so far."""
        return len(self.links)

    @property
    def open(self) -> int:
        """The number of connections that are open now."""
        return sum(link.open for link in self.links)

    def wait_accepted(self, count: int, *, seconds: float = 60.0) -> None:
        """Wait until so many connections were made in all; raises AssertionError."""
        until(lambda: self.accepted >= count, f"{count} connections through the proxy", seconds=seconds)

    def retarget(self, target: Address) -> None:
        """Send later connections elsewhere: a fail-over that leaves the old ones where they are."""
        self._call(lambda: setattr(self, "_target", target))

    def freeze(self, which: Which = Which.OLD, way: Way = Way.BOTH) -> None:
        """Keep connections open and move nothing: neither bytes, nor the end of a side."""
        self._set(_Rule(mode=_Mode.FREEZE), which, way)

    def lose(self, which: Which = Which.OLD, way: Way = Way.BOTH) -> None:
        """Take bytes and throw them away: a sender never blocks, an answer never comes."""
        self._set(_Rule(mode=_Mode.LOSE), which, way)

    def drip(self, rate: float, which: Which = Which.OLD, way: Way = Way.BOTH) -> None:
        """Move so many bytes per second."""
        self._set(_Rule(rate=rate), which, way)

    def delay(self, seconds: float, which: Which = Which.OLD, way: Way = Way.BOTH) -> None:
        """Hold each piece for so long before it is handed on."""
        self._set(_Rule(delay=seconds), which, way)

    def reset(self) -> None:
        """Break all open connections with RST; new ones work."""
        self._call(lambda: [link.reset() for link in self.links if link.open])

    def refuse(self, refuses: bool = True) -> None:
        """Turn new connections away with RST; the open ones stay."""
        self._call(lambda: setattr(self, "_refuses", refuses))

    def heal(self, which: Which = Which.ALL) -> None:
        """End all faults; what frozen connections held back is delivered."""
        self._set(_CLEAR, which, Way.BOTH)
        if which is not Which.OLD:
            self.refuse(False)

    def _set(self, rule: _Rule, which: Which, way: Way) -> None:
        def work() -> None:
            if which is not Which.OLD:
                for one in (Way.UP, Way.DOWN) if way is Way.BOTH else (way,):
                    self._new[one] = rule
            if which is not Which.NEW:
                for link in self.links:
                    if link.open:
                        link.set(rule, way)

        self._call(work)

    def _call(self, work: Callable[[], T]) -> T:
        """Run it in the proxy's thread and wait for its end."""

        async def call() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(_CALL_SECONDS)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _begin(self) -> None:
        self._spawn(self._accept())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self) -> None:
        listener = self._listener
        assert listener is not None
        while True:
            try:
                client, _ = await self._loop.sock_accept(listener)
            except OSError:
                return
            client.setblocking(False)
            if self._refuses:
                self.refused += 1
                _break(client)
            else:
                self._spawn(self._link(client))

    async def _link(self, client: socket.socket) -> None:
        try:
            server = await asyncio.wait_for(_connected(self._loop, self._target), _CONNECT_SECONDS)
        except (OSError, TimeoutError):
            self.refused += 1
            _break(client)
            return
        link = Link(len(self.links), client, server)
        for way, rule in self._new.items():
            link.set(rule, way)
        self.links.append(link)
        await link.run(self._look)

    async def _end(self) -> None:
        tasks = list(self._tasks)
        for link in self.links:
            if link.open:
                link.reset()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._listener is not None:
            self._listener.close()
        if isinstance(self._listen, Path):
            self._listen.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def _connected(loop: asyncio.AbstractEventLoop, target: Address) -> socket.socket:
    if isinstance(target, Path):
        server = socket.socket(socket.AF_UNIX)
        address: str | tuple[str, int] = str(target)
    else:
        address = ("127.0.0.1", target) if isinstance(target, int) else target
        server = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server.setblocking(False)
    try:
        await loop.sock_connect(server, address)
    except BaseException:
        server.close()
        raise
    return server


def _listener(listen: Address) -> socket.socket:
    if isinstance(listen, Path):
        listen.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(listen))
        listener.listen(128)
    else:
        address = ("127.0.0.1", listen) if isinstance(listen, int) else listen
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        listener = socket.create_server(address, family=family, backlog=128)
    listener.setblocking(False)
    return listener


def _break(client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    client.close()
