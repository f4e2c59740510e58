# SPDX-License-Identifier: Apache-2.0
"""Carries a plan of faults out, each at its time, and keeps every part running besides."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Final

from tests.chaos.members import Daemon, Member
from tests.chaos.plan import Fault, Kind

LOG = logging.getLogger("chaos")

_LOOK_EVERY: Final = 0.2
_GATHER: Final = 4.0  # seconds in which messages gather before a listener that stands still
_HOLD: Final = 1.5  # seconds in which it has them in hand and nobody to give them to


class Faults:
    """Faults to `members`, by name; `delete(queue)` deletes one."""

    def __init__(self, members: Mapping[str, Member], delete: Callable[[str], None]) -> None:
        self._members = members
        self._delete = delete
        self._stop = threading.Event()
        self._under_way: list[threading.Thread] = []
        self._watch = threading.Thread(target=self._keep_running, name="keep-running", daemon=True)
        self.done: Counter[str] = Counter()
        self.failed: list[str] = []
        self.by_itself: Counter[str] = Counter()
        self._watch.start()

    def carry_out(self, faults: Sequence[Fault], stop: threading.Event) -> None:
        """Until all are done and every part runs again."""
        began = time.monotonic()
        for fault in faults:
            if stop.wait(max(0.0, began + fault.at - time.monotonic())):
                break
            thread = threading.Thread(target=self._one, args=(fault,), name=str(fault), daemon=True)
            thread.start()
            self._under_way.append(thread)
        for thread in self._under_way:
            thread.join()

    def close(self) -> None:
        """Look after nothing any more."""
        self._stop.set()
        self._watch.join()

    def _one(self, fault: Fault) -> None:
        LOG.info("%s", fault)
        try:
            self._do(fault)
            self.done[fault.kind.value] += 1
        except Exception as ex:
            LOG.exception("%s", fault)
            self.failed.append(f"{fault}: {ex}")

    def _do(self, fault: Fault) -> None:
        if fault.kind is Kind.DELETE:
            self._delete(fault.part)
            return
        hit = self._hit(fault)
        with ExitStack() as stack:
            for name in sorted(hit):
                stack.enter_context(self._members[name].lock)
            members = [self._members[name] for name in hit]
            if fault.kind is Kind.STOP:
                _each(members, "freeze")
                time.sleep(fault.seconds)
                _each(members, "thaw")
                return
            if fault.kind is Kind.KILL_ON_HOLD:
                listener, api = members
                listener.freeze()
                api.die()
                time.sleep(_GATHER)
                listener.thaw()
                time.sleep(_HOLD)
                listener.die()
            else:
                _each(members, "end" if fault.kind is Kind.RESTART else "die")
            time.sleep(fault.seconds)
            _each(members, "start")

    def _hit(self, fault: Fault) -> list[str]:
        """The members a fault is done to; of a listener on hold first itself, then its API."""
        if fault.kind is Kind.KILL_ALL:
            return [name for name in self._members if name.rpartition("-")[0] == fault.part]
        if fault.kind is Kind.KILL_ON_HOLD:
            return [fault.part, fault.part.replace("listener", "api")]
        return [fault.part]

    def _keep_running(self) -> None:
        """As an init system does: what ends by itself is started again."""
        while not self._stop.wait(_LOOK_EVERY):
            for name, member in self._members.items():
                if not isinstance(member, Daemon) or not member.lock.acquire(blocking=False):
                    continue
                try:
                    if (code := member.ended()) is not None:
                        LOG.warning("%s ended by itself with %d", name, code)
                        self.by_itself[name] += 1
                        member.start()
                finally:
                    member.lock.release()


def _each(members: Sequence[Member], verb: str) -> None:
    for member in members:
        getattr(member, verb)()
