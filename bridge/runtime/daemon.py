# SPDX-License-Identifier: Apache-2.0
"""A daemon: a set of supervised threads, a stop flag and three signals.

The first SIGTERM or SIGINT asks every part to drain within the grace time. The second leaves at once, which is safe
because no message is acknowledged before it is safe. SIGHUP reads again the options that may change in a process.
"""

import gc
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol, runtime_checkable

from bridge.runtime.health import LIMIT, Health
from bridge.runtime.retry import Backoff

LOG = logging.getLogger(__name__)
_BEAT = 5.0  # seconds between messages to systemd's watchdog
_SETTLED = 60.0  # seconds a body has to run for its next failure to count as the first again


class Part(Protocol):
    """A piece of a daemon with a life of its own."""

    def start(self) -> None:
        """Begin; return at once. Never raises for a service that may come up later (broker, database, libvirt)."""

    def stop(self) -> None:
        """Ask the part to end; return at once."""

    def join(self, seconds: float) -> bool:
        """Wait for the end; return True if the part ended in time."""


@runtime_checkable
class Reloadable(Protocol):
    """A part that reads files of its own again on SIGHUP."""

    def reload(self) -> None:
        """Read the files again; never raises."""


class _StopFlag(threading.Event):
    """The stop flag of a watched body: a look at the flag is a turn of the body's loop, a wait a rest."""

    def __init__(self, health: Health, name: str) -> None:
        super().__init__()
        self._health = health
        self._name = name

    def is_set(self) -> bool:
        """Note a turn, then act like threading.Event."""
        self._health.turn(self._name)
        return super().is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Note a rest, wait, note a turn."""
        self._health.rest(self._name)
        try:
            return super().wait(timeout)
        finally:
            self._health.turn(self._name)


class Supervised:
    """A thread that runs `body(stop)` until the stop flag is set, and starts it anew when it raises.

    One error never ends a part. The error is logged with its traceback, the part is not ready during its back-off,
    and the body runs again. The part is also not ready while its body makes no progress for `moves_within` seconds.
    Progress is a look at the flag, a wait for it, or a call of health.moving().
    """

    def __init__(
        self,
        name: str,
        body: Callable[[threading.Event], None],
        health: Health,
        *,
        moves_within: float = LIMIT,
    ) -> None:
        self._name = name
        self._body = body
        self._health = health
        self._moves_within = moves_within
        self._stop = _StopFlag(health, name)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread of the body."""
        self._thread.start()

    def stop(self) -> None:
        """Set the flag that the body was given."""
        self._stop.set()

    def join(self, seconds: float) -> bool:
        """Wait for the body to return."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        self._health.loop(self._name, within=self._moves_within)
        self._health.follow(self._name)
        try:
            self._supervise()
        finally:
            self._health.end_loop(self._name)

    def _supervise(self) -> None:
        backoff, failures = Backoff(first=0.5, cap=30, floor=0.2), 0
        while not self._stop.is_set():
            started = time.monotonic()
            try:
                self._body(self._stop)
                return
            except Exception as ex:
                LOG.exception("%s failed and is restarted", self._name)
                self._health.bad(self._name, f"failed: {type(ex).__name__}; restarting soon")
            failures = 1 if time.monotonic() - started > _SETTLED else failures + 1
            if not self._stop.wait(backoff.delay(failures)):
                self._health.ok(self._name, "restarted")


class Daemon:
    """A set of parts: started in order, stopped in reverse order within the grace time after a signal."""

    def __init__(
        self,
        name: str,
        parts: list[Part],
        *,
        health: Health | None = None,
        grace: float = 20.0,
        reload: Callable[[], None] = lambda: None,
    ) -> None:
        """Keep the parts for `run`.

        `reload` reads the configuration again after a SIGHUP, before the parts; it does not raise. `health` decides
        whether systemd's watchdog is fed.
        """
        self._health = health or Health()
        self._name = name
        self._reload = reload
        self._parts = parts
        self._grace = grace
        self._hung = False
        self._stop = threading.Event()

    def run(self) -> int:
        """Run until a stop is asked for; return 0 if every part ended in time.

        Otherwise the process ends at once, with status 1.
        """
        self._install_signals()
        with self.running() as ended:
            notify("READY=1")
            LOG.info("%s is running", self._name)
            settled = False
            while not self._stop.wait(_BEAT):
                self._feed_watchdog()
                if not settled:
                    _keep_what_start_up_made()
                    settled = True
            LOG.info("%s stops within %.0f s, after the work in progress", self._name, self._grace)
            notify("STOPPING=1")
        if not ended():
            logging.shutdown()
            os._exit(1)  # the interpreter would wait for the late part's threads, for ever if they hang
        return 0

    def _feed_watchdog(self) -> None:
        """Tell systemd that this process lives, while every loop makes its turns; else systemd restarts it."""
        self._health.checks()  # logs the checks that went bad by themselves
        hung = self._health.hung()
        if not hung:
            notify("WATCHDOG=1")
        elif not self._hung:
            LOG.error(
                "%s: a call has not returned for minutes; systemd's watchdog is not fed, so systemd restarts "
                "this process",
                ", ".join(hung),
            )
        self._hung = bool(hung)

    @contextmanager
    def running(self) -> Iterator[Callable[[], bool]]:
        """Start the parts, and stop them on the way out. The yielded function tells afterwards if all ended in
        time.
        """
        late: list[Part] = []
        started: list[Part] = []
        try:
            for part in self._parts:
                part.start()
                started.append(part)
            yield lambda: not late
        finally:
            deadline = time.monotonic() + self._grace
            for part in reversed(started):
                part.stop()
                if not part.join(max(0.1, deadline - time.monotonic())):
                    late.append(part)
                    LOG.warning("%s did not end within the grace time", part)

    def stop(self) -> None:
        """Stop as at the first SIGTERM."""
        self._stop.set()

    def reload(self) -> None:
        """Read again, as at SIGHUP: options that may change at run time, then the files of each part."""
        LOG.info("%s reads its files again", self._name)
        self._reload()
        for part in self._parts:
            if isinstance(part, Reloadable):
                part.reload()

    def _install_signals(self) -> None:
        def on_signal(number: int, _frame: FrameType | None) -> None:
            if self._stop.is_set():
                os._exit(128 + number)
            self._stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, on_signal)
        # in a thread, because the handler may have interrupted the very lock a part wants
        signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=self.reload, name="reload").start())


def notify(state: str) -> None:
    """Notify systemd (sd_notify protocol); without systemd do nothing."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(state.encode(), address)
    except OSError as ex:
        LOG.warning("systemd was not notified: %s", ex)


def _keep_what_start_up_made() -> None:
    """Exempt the objects of the start from the garbage collector, because they stay until the end anyway.

    Otherwise each full collection looks through the objects of all modules. An extend may have to wait 30 ms for
    that.
    """
    gc.collect()
    gc.freeze()
