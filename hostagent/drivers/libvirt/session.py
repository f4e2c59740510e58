# SPDX-License-Identifier: Apache-2.0
"""Sessions with libvirt: one connection per worker, a limit on every call.

A call into libvirt cannot be interrupted, and a stopped QEMU holds it for ever. So it runs in a thread of its
session. At the limit the session abandons the thread and its connection, and takes new ones. A guest with such a
call is not touched until the call has returned, because a late resize could otherwise overtake a newer, larger
one.
"""

import concurrent.futures
import logging
import queue
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import libvirt
from prometheus_client import Gauge

from bridge.core.extend import is_uuid
from bridge.core.inventory import GuestState
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from bridge.runtime.health import Check, Health
from hostagent.domain import Domain
from hostagent.drivers.base import Capacity, GuestEvents, GuestHandle, GuestList, Watch, failed
from hostagent.drivers.libvirt import agent, errors
from hostagent.drivers.libvirt.connect import close_libvirt, open_libvirt
from hostagent.drivers.libvirt.domain_xml import BadDomainError, parse_domain
from hostagent.drivers.libvirt.guest import RESIZE, LibvirtGuest, read_capacity
from hostagent.drivers.libvirt.watch import LibvirtEvents
from hostagent.errors import NotAskedError, StepFailedError

LOG = logging.getLogger(__name__)
T = TypeVar("T")
Job = Callable[[Any], Any]

_ANY = ""  # key of calls that belong to no guest
HEALTH = "hostagent.libvirt_calls"
_AGENT_MARGIN = 6.0  # seconds less than the session has: libvirt first waits up to 5 s for the agent's attention


class Abandoned:
    """The abandoned calls of this process that have not returned, by guest. For several threads."""

    def __init__(self, most: int, health: Health, gauge: Gauge) -> None:
        self._most = most
        self._gauge = gauge
        self._lock = threading.Lock()
        self._calls: dict[str, int] = {}
        self._total = 0
        health.state(HEALTH, self._state)

    def check(self, key: str, share: float = 1.0) -> None:
        """Raise NotAskedError where a new call must not be made now; `share` of the cap is what it may use up."""
        with self._lock:
            if key != _ANY and key in self._calls:
                raise _not_asked("an earlier call for this guest has not returned yet")
            if sum(self._calls.values()) >= max(1, int(self._most * share)):
                raise _not_asked("too many libvirt calls have not returned")

    def add(self, key: str) -> None:
        """Count an abandoned call."""
        self._change(key, 1)

    def remove(self, key: str) -> None:
        """Forget an abandoned call that has returned."""
        self._change(key, -1)

    def _change(self, key: str, by: int) -> None:
        with self._lock:
            self._calls[key] = self._calls.get(key, 0) + by
            if self._calls[key] == 0:
                del self._calls[key]
            self._total = total = sum(self._calls.values())
        self._gauge.set(total)

    def _state(self) -> Check:
        """Return the state of the calls now; takes no lock."""
        total = self._total
        if total >= self._most:
            return Check(False, f"{total} libvirt calls hang; no new ones are made until some return")
        return Check(True, f"abandoned calls that have not returned: {total}" if total else "ok")


class Session:
    """Libvirt for one thread. Opens its connection when it is needed, opens it anew when it broke.

    `share`: how much of the cap on calls given up on its questions to QEMU may use up; the rest is left to others.
    """

    def __init__(
        self,
        uri: str,
        *,
        limit: float,
        abandoned: Abandoned,
        connect: Callable[[str], Any] = open_libvirt,
        share: float = 1.0,
    ) -> None:
        self._open = partial(connect, uri)
        self._limit = limit
        self._abandoned = abandoned
        self._share = share
        self._caller: _Caller | None = None
        self._watch: _ConnectionWatch | None = None

    def domain(self, server_id: str) -> Domain | None:
        """Return the domain as it is now, None where libvirt does not know it."""

        def look(domain: Any, _wanted: object) -> tuple[GuestState, bool, bool, str]:
            number, reason = domain.state(0)
            has_job = not errors.is_migration_or_restore(number, reason) or _has_job(domain)
            state = errors.guest_state(number, reason, has_job=has_job)
            has_image = state is GuestState.OFF and bool(domain.hasManagedSaveImage(0))
            saved = errors.is_saved(number, reason, has_image=has_image)
            return state, saved, errors.has_left(number, reason), domain.XMLDesc(0)

        try:
            state, saved, left, xml = self._on_domain(server_id, "look", look)
            disks, run = parse_domain(xml)
            return Domain(server_id=server_id, state=state, disks=disks, run=run, saved=saved, left=left)
        except BadDomainError as ex:
            raise failed(Reason.HYPERVISOR_RAISED, str(ex)) from ex
        except StepFailedError as ex:
            if ex.reason is Reason.DOMAIN_ABSENT:
                return None
            raise

    def capacity(self, server_id: str, target: str) -> Capacity:
        """Return one disk's sizes now."""
        self._abandoned.check(server_id, self._share)  # QEMU is asked, and QEMU is what hangs
        return self._on_domain(server_id, "blockInfo", lambda domain, _wanted: read_capacity(domain, target))

    def state(self, server_id: str) -> GuestState | None:
        """Return a guest's state alone, None where libvirt does not know the guest. Raises StepFailedError.

        For a guest whose XML cannot be had.
        """

        def look(domain: Any, _wanted: object) -> tuple[int, int]:
            state, reason = domain.state(0)
            return state, reason

        try:
            state, reason = self._on_domain(server_id, "state", look)
        except StepFailedError as ex:
            if ex.reason is Reason.DOMAIN_ABSENT:
                return None
            raise
        return errors.guest_state(state, reason)

    def guests(self) -> GuestList:
        """Return the guests that libvirt lists. A domain without a UUID is not a server's."""
        ids = self.on_connection(
            "list", lambda connection: [domain.UUIDString() for domain in connection.listAllDomains(0)]
        )
        return GuestList(server_ids=frozenset(server_id.lower() for server_id in ids if is_uuid(server_id)))

    def on_guest(self, server_id: str, work: Callable[[GuestHandle, Callable[[], bool]], T]) -> T:
        """Run `work(guest, wanted)` within the call limit, a second time after a reconnect."""
        self._abandoned.check(server_id, self._share)
        return self._on_domain(server_id, RESIZE, lambda domain, wanted: work(LibvirtGuest(domain), wanted))

    def watch(self, events: GuestEvents) -> Watch:
        """Register for events, once for each connection."""

        def register(connection: Any) -> _ConnectionWatch:
            watch = self._watch
            if watch is None or watch.connection is not connection:
                watch = self._watch = _ConnectionWatch(self, LibvirtEvents(connection, events))
            return watch

        return self.on_connection("register for events", register)

    def agent(self, server_id: str, command: Mapping[str, Any], limit: float) -> Any:
        """Ask the guest's agent. libvirt waits for it by itself, and gives up before this session does.

        A call that hangs all the same holds up further questions to this agent, never a resize.
        """
        key = f"agent of {server_id}"
        self._abandoned.check(key, self._share)
        seconds = max(1, int(min(limit, self._limit - _AGENT_MARGIN)))

        def ask(domain: Any, _wanted: object) -> str:
            return agent.ask(domain, command, seconds)

        return agent.answer_of(self._on_domain(server_id, agent.CALL, ask, key=key))

    def _on_domain(
        self, server_id: str, what: str, work: Callable[[Any, Callable[[], bool]], T], *, key: str | None = None
    ) -> T:
        """Run one call. `key`: the calls that wait until this one has returned; by default all of the guest."""
        call = _CallHandle()
        result: T = self._run(
            key or server_id,
            what,
            lambda connection: work(connection.lookupByUUIDString(server_id), call.still),
            call,
        )
        return result

    def secret(self, secret_id: str) -> bytes | None:
        """Return a secret's value; None for one that is private or not there. Raises StepFailedError."""

        def look(connection: Any) -> bytes | None:
            try:
                return bytes(connection.secretLookupByUUIDString(secret_id).value(0))
            except libvirt.libvirtError as ex:
                if errors.no_secret(ex):
                    return None
                raise

        return self.on_connection("secret", look)

    def on_connection(self, what: str, work: Callable[[Any], T]) -> T:
        """Run `work(virConnect)` within the call limit. Raises StepFailedError."""
        result: T = self._run(_ANY, what, work, _CallHandle())
        return result

    def close(self) -> None:
        """End the watch and close the connection."""
        watch, self._watch = self._watch, None
        if watch is not None and self._caller is not None:
            with suppress(StepFailedError):
                self.on_connection("end the watch", lambda _connection: watch.events.end())
        self._leave()

    def _leave(self) -> None:
        """Close the connection, once the call in it has returned."""
        caller, self._caller = self._caller, None
        if caller is not None:
            caller.leave()

    def _run(self, key: str, what: str, job: Job, call: "_CallHandle") -> Any:
        self._abandoned.check(key)
        if self._caller is None:
            self._caller = _Caller(self._open)
        caller = self._caller
        future = caller.submit(partial(_unless_given_up, call, job))
        try:
            return future.result(self._limit)
        except libvirt.libvirtError as ex:
            raise errors.stopped(ex, what) from ex
        except TimeoutError as ex:
            call.give_up()
            if caller.opening:
                key = _ANY  # the guest's call has not begun and never will, so the guest need not wait for it
            self._abandoned.add(key)
            future.add_done_callback(lambda _: self._abandoned.remove(key))
            self._leave()
            LOG.warning(
                "libvirt call %s for server %s did not return within %g s and is abandoned",
                what,
                key or "-",
                self._limit,
            )
            raise _timed_out(f"{what} took longer than {self._limit:g} s") from ex


class _ConnectionWatch:
    """The events of one connection; for as long as the session has that connection."""

    def __init__(self, session: Session, events: LibvirtEvents) -> None:
        self.events = events
        self.connection = events.connection
        self._session = session

    def stands(self) -> bool:
        """Return whether the connection is the session's, and alive."""
        return self._session.on_connection("look", lambda now: now is self.connection and bool(now.isAlive()))


class _CallHandle:
    """A call's handle: false once its caller has abandoned it."""

    def __init__(self) -> None:
        self._given_up = False

    def give_up(self) -> None:
        self._given_up = True

    def still(self) -> bool:
        return not self._given_up


def _unless_given_up(call: _CallHandle, job: Job, connection: Any) -> Any:
    """Run a job, unless its caller abandoned it while the connection was made."""
    if not call.still():
        raise _timed_out("the call was abandoned before libvirt was connected")
    return job(connection)


class _Caller:
    """The thread and the connection of a session."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._open = connect
        self._connection: Any = None
        self.opening = False
        """True while libvirt is being connected to: an open of a silent socket has no end."""
        self._jobs: queue.SimpleQueue[tuple[concurrent.futures.Future[Any], Job] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="libvirt-calls", daemon=True).start()

    def submit(self, job: Job) -> concurrent.futures.Future[Any]:
        """Run the job after those before it; the future raises its libvirtError."""
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._jobs.put((future, job))
        return future

    def leave(self) -> None:
        """End after the jobs that are there."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            future, job = item
            try:
                result = self._do(job)
            except BaseException as ex:  # noqa: BLE001 - it is the caller's, who gets it from the future
                future.set_exception(ex)
            else:
                future.set_result(result)
            del item, future, job
        self._drop()

    def _do(self, job: Job) -> Any:
        fresh = self._connection is None
        connection = self._connected()
        try:
            return job(connection)
        except libvirt.libvirtError as ex:
            if not (errors.connection_lost(ex) or _dead(connection)):
                raise
            self._drop()
            if fresh:
                raise
        return job(self._connected())

    def _connected(self) -> Any:
        if self._connection is None:
            self.opening = True
            try:
                self._connection = self._open()
            except libvirt.libvirtError as ex:
                raise StepFailedError(Outcome.HYPERVISOR_FAILED, Reason.HYPERVISOR_DOWN, str(ex)) from ex
            finally:
                self.opening = False
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            close_libvirt(connection)


def _has_job(domain: Any) -> bool:
    """Return whether a job runs on the domain. Asked of a guest that is being received, libvirt raises."""
    try:
        return bool(domain.jobStats().get("type") != libvirt.VIR_DOMAIN_JOB_NONE)
    except libvirt.libvirtError:
        return True


def _dead(connection: Any) -> bool:
    try:
        return not connection.isAlive()
    except libvirt.libvirtError:
        return True


def _not_asked(detail: str) -> NotAskedError:
    return NotAskedError(Outcome.HYPERVISOR_FAILED, Reason.HYPERVISOR_TIMED_OUT, detail)


def _timed_out(detail: str) -> StepFailedError:
    return StepFailedError(Outcome.HYPERVISOR_FAILED, Reason.HYPERVISOR_TIMED_OUT, detail)
