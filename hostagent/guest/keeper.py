# SPDX-License-Identifier: Apache-2.0
"""Looks into guests, after extends and slowly for all, in threads of their own: no extend ever waits for a guest.

A guest's agent that is dead, frozen, hanging, endless or lying holds one of these threads for a bounded time, then
its guest is looked at again later.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from bridge.core.extend import ExtendKey
from bridge.core.file_systems import FileSystemSeen, FsState
from bridge.core.inventory import GuestState, Inventory
from bridge.core.messages import Order, Report
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.domain import Domain
from hostagent.drivers.base import Capacity, GuestAgent
from hostagent.errors import StepFailedError
from hostagent.guest.calls import AgentCalls
from hostagent.guest.errors import GuestLookError
from hostagent.guest.grow import VolumeGrowth
from hostagent.guest.mode import FileSystemMode
from hostagent.guest.see import GuestView, judge_volume, reference, unseen, view
from hostagent.guest.wishes import GrowWish, GrowWishes

LOG = logging.getLogger(__name__)

_GROWN: Final = frozenset({Outcome.RESIZED, Outcome.ALREADY})
_FIRST_RETRY: Final = 5.0  # seconds; doubled at each look that left a wish open
_LAST_RETRY: Final = 600.0
_IDLE: Final = 60.0
_DONE: Final = frozenset({FsState.GROWN, FsState.FITS, FsState.REFUSED})


class GuestSession(GuestAgent, Protocol):
    """The hypervisor as far as a look into a guest needs it; one for each thread."""

    def domain(self, server_id: str) -> Domain | None:
        """Return the guest's current state, None where the hypervisor does not know the guest."""

    def capacity(self, server_id: str, target: str) -> Capacity:
        """Return the current sizes of one disk."""

    def close(self) -> None:
        """Release the session's resources."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestLimits:
    """Seconds: `call` of one question to an agent, `growth` of all commands for one volume, `interval` of looks."""

    call: float
    growth: float
    interval: float


@dataclass(slots=True)
class _Look:
    """A guest to be looked at: when, and how many looks have left a wish open."""

    at: float
    tries: int = 0


class GuestKeeper:
    """A part: threads that look into guests. `make_session` is called once in each thread."""

    def __init__(
        self,
        mode: FileSystemMode,
        count: int,
        *,
        make_session: Callable[[], GuestSession],
        tell: Callable[[Sequence[FileSystemSeen]], None],
        wishes: GrowWishes,
        limits: GuestLimits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._mode = mode
        self._make_session = make_session
        self._tell = tell
        self._wishes = wishes
        self._limits = limits
        self._clock = clock
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._due: dict[str, _Look] = {}
        self._in_hand: set[str] = set()
        self._slow: set[str] = set()  # guests whose last look took longer than one answer may
        self._slow_max = max(1, count // 2)
        self._references: dict[ExtendKey, FileSystemSeen] = {}
        self._threads = [
            threading.Thread(target=self._run, name=f"guest-{number}", daemon=True) for number in range(count)
        ]

    def start(self) -> None:
        """Start the threads; growth that a restart has interrupted goes on."""
        for server_id in self._wishes.servers():
            self._want(server_id, 0.0)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End every wait of the threads."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()

    def join(self, seconds: float) -> bool:
        """Wait for looks in progress; a thread that hangs in a call ends with the process."""
        deadline = self._clock() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - self._clock()))
        return True

    def note(self, order: Order, report: Report) -> None:
        """Schedule a look at a guest after its extend; returns at once."""
        if report.outcome not in _GROWN:
            return
        if order.grow_file_system and self._mode is FileSystemMode.GROW:
            wish = GrowWish(request_id=order.request_id, global_request_id=order.global_request_id)
            self._wishes.add(order.key, wish)
        elif (open_wish := self._wishes.get(order.key)) is not None:
            self._wishes.finish({order.key: open_wish})  # its owner does not ask any more
        self._want(order.key.server_id, 0.0)

    def present(self, inventory: Inventory) -> None:
        """Schedule looks at new guests, and regular ones at all; forget guests that left."""
        here = {domain.server_id for domain in inventory.domains if domain.state is GuestState.ACTIVE}
        with self._changed:
            if inventory.full:
                stay = here | self._wishes.servers()
                self._due = {server_id: look for server_id, look in self._due.items() if server_id in stay}
                self._slow &= stay
                self._references = {k: seen for k, seen in self._references.items() if k.server_id in here}
            for server_id in inventory.gone:
                self._due.pop(server_id, None)
            for server_id in here - self._due.keys() - self._in_hand:
                spread = random.uniform(0, self._limits.interval)  # noqa: S311 - no secret
                self._due[server_id] = _Look(self._clock() + spread)
            self._changed.notify_all()

    def _want(self, server_id: str, seconds: float, tries: int = 0) -> None:
        with self._changed:
            at = self._clock() + seconds
            known = self._due.get(server_id)
            if known is None or known.at > at:
                self._due[server_id] = _Look(at, tries)
            self._changed.notify_all()

    def _run(self) -> None:
        session: GuestSession | None = None
        while not self._stopping.is_set():
            if (taken := self._take()) is None:
                continue
            server_id, tries = taken
            began = self._clock()
            try:
                session = session or self._make_session()
                again = self._look(session, server_id)
            except Exception:
                LOG.exception("server %s: its file systems cannot be read", server_id)
                again = False
            self._done(server_id, tries, again=again, slow=self._clock() - began > self._limits.call)
        if session is not None:
            session.close()

    def _take(self) -> tuple[str, int] | None:
        """Wait for a guest whose time has come and take it; None when nothing came.

        Slow guests have half of the threads at most, so that the others are not kept waiting by them.
        """
        with self._changed:
            crowded = len(self._in_hand & self._slow) >= self._slow_max
            kept = self._in_hand | self._slow if crowded else self._in_hand
            free = {server_id: look for server_id, look in self._due.items() if server_id not in kept}
            first = min(free, key=lambda server_id: free[server_id].at, default=None)
            wait = _IDLE if first is None else free[first].at - self._clock()
            if first is None or wait > 0:
                self._changed.wait(min(wait, _IDLE))
                return None
            self._in_hand.add(first)
            return first, self._due.pop(first).tries

    def _done(self, server_id: str, tries: int, *, again: bool, slow: bool) -> None:
        with self._changed:
            self._in_hand.discard(server_id)
            self._slow.discard(server_id)
            if slow:
                self._slow.add(server_id)
        if again:
            self._want(server_id, min(_LAST_RETRY, _FIRST_RETRY * 2 ** min(tries, 10)), tries + 1)
        else:
            self._want(server_id, self._limits.interval)

    def _look(self, session: GuestSession, server_id: str) -> bool:
        """Look into one guest; return whether a wish stays open."""
        self._wishes.make_safe()
        self._wishes.tidy()
        wishes = self._wishes.of(server_id) if self._mode is FileSystemMode.GROW else {}
        try:
            domain = session.domain(server_id)
        except StepFailedError as ex:
            LOG.debug("server %s: its guest cannot be read for file systems: %s", server_id, ex)
            return bool(wishes)
        if domain is None or domain.left:
            self._wishes.finish({ExtendKey(server_id, volume_id): wish for volume_id, wish in wishes.items()})
            return False
        if domain.state is not GuestState.ACTIVE:
            return bool(wishes)
        targets = {disk.volume_id: disk.target for disk in domain.disks if disk.volume_id and not disk.cdrom}
        self._wishes.finish({ExtendKey(server_id, gone): wishes[gone] for gone in wishes.keys() - targets.keys()})
        if not targets:
            return False
        seen = self._seen(session, server_id, targets, wishes)
        self._tell(seen)
        finished = {
            each.key: wishes[each.key.volume_id]
            for each in seen
            if each.key.volume_id in wishes and each.state in _DONE
        }
        self._wishes.finish(finished)
        return len(finished) < len(wishes.keys() & targets.keys())

    def _seen(
        self, session: GuestSession, server_id: str, targets: Mapping[str, str], wishes: Mapping[str, GrowWish]
    ) -> list[FileSystemSeen]:
        calls = AgentCalls(
            session, server_id, limit=self._limits.call, sleep=self._stopping.wait, budget=self._limits.growth
        )
        try:
            shown = view(calls)
        except GuestLookError as ex:
            LOG.debug("server %s: the guest's agent did not return its file systems: %s", server_id, ex)
            return [
                _asked(unseen(ExtendKey(server_id, volume_id), ex.reason), wishes.get(volume_id))
                for volume_id in targets
            ]
        found = []
        for volume_id, target in targets.items():
            key = ExtendKey(server_id, volume_id)
            try:
                capacity = session.capacity(server_id, target).capacity
            except StepFailedError as ex:
                LOG.debug("server %s disk %s: its size cannot be read: %s", server_id, target, ex)
                found.append(_asked(unseen(key, Reason.SIZE_UNKNOWN), wishes.get(volume_id)))
                continue
            found.append(self._volume(session, shown, key, targets.keys(), capacity, wishes.get(volume_id)))
        return found

    def _volume(
        self,
        session: GuestSession,
        shown: GuestView,
        key: ExtendKey,
        volume_ids: Collection[str],
        capacity: int,
        wish: GrowWish | None,
    ) -> FileSystemSeen:
        if wish is None:
            seen = judge_volume(shown, key, volume_ids, capacity, self._references.get(key))
        else:
            calls = AgentCalls(
                session, key.server_id, limit=self._limits.call, sleep=self._stopping.wait,
                budget=self._limits.growth,
            )  # fmt: skip
            growth = VolumeGrowth(
                calls=calls, key=key, volume_ids=volume_ids, capacity=capacity, command_limit=self._limits.growth
            )
            seen = _asked(growth.run(), wish)
            LOG.info(
                "server %s volume %s: file system %s (%s)", key.server_id, key.volume_id, seen.state, seen.reason
            )
        with self._changed:
            self._references[key] = reference(self._references.get(key), replace(seen, steps=()))
        return seen


def _asked(seen: FileSystemSeen, wish: GrowWish | None) -> FileSystemSeen:
    """Return a look under the request of its owner."""
    if wish is None:
        return seen
    return replace(seen, asked=True, request_id=wish.request_id, global_request_id=wish.global_request_id)
