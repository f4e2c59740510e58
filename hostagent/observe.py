# SPDX-License-Identifier: Apache-2.0
"""An order to an agent that only looks: has the guest the size by now? Beside Nova, whose compute extends.

This module cannot change a disk. It reads a domain and its sizes, where possible over a read-only connection to the
hypervisor. An import contract keeps the resize and os-brick out of it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from bridge.core.extend import Bytes
from bridge.core.inventory import GuestState
from bridge.core.messages import Order, Report, StepReport
from bridge.core.outcome import Outcome, Told
from bridge.core.reasons import Reason
from hostagent.attempt import find_disk, reported
from hostagent.domain import Disk, Domain
from hostagent.drivers.base import Hypervisor
from hostagent.knowledge import ToldDisks
from hostagent.ports import HeaderOf

_LOOK_EVERY: Final = 0.5  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserveTools:
    """Tools of an observer: `wait` seconds for the size; `sleep(seconds)` returns whether the agent is stopping."""

    hypervisor: Hypervisor
    wait: float
    sleep: Callable[[float], bool]
    clock: Callable[[], float]
    hidden: HeaderOf = lambda _disk: 0  # bytes of the volume that the guest does not see
    told: ToldDisks = field(default_factory=lambda: ToldDisks(watches=True))


def observe(order: Order, eyes: ObserveTools) -> Report:
    """Look until the guest has the size or the wait is over. Never raises."""
    return reported(order, _Observation(order, eyes))


@dataclass(slots=True)
class _Observation:
    """One order, looked at. `header`: bytes of the volume that the guest does not see."""

    order: Order
    eyes: ObserveTools
    steps: list[StepReport] = field(default_factory=list)
    before: Bytes | None = None
    after: Bytes | None = None
    header: int = 0
    overhead: int = 0

    def run(self) -> tuple[Outcome, Reason]:
        """Return the outcome; what the hypervisor does not tell is raised."""
        began = self.eyes.clock()
        domain, disk = find_disk(self.eyes.hypervisor, self.order.key)
        self._record("find", began, f"{domain.state} {disk.target}")
        if domain.saved:
            return Outcome.GUEST_SAVED, Reason.DOMAIN_SAVED
        if domain.state is GuestState.OFF:
            return Outcome.GUEST_OFF, Reason.DOMAIN_OFF
        looked = self.eyes.clock()
        self.header = self.eyes.hidden(disk)
        self.before = self.after = self._size(disk)
        if self.before >= self.order.target:
            self._record("look", looked, "", self.before)
            return self._already(domain, disk, self.before)
        self.eyes.told.judge_disk(domain, disk, self.before - self.header)  # later growth is of this run
        while self.after < self.order.target and self.eyes.clock() - looked < self.eyes.wait:
            if self.eyes.sleep(_LOOK_EVERY):
                break
            self.after = self._size(disk)
        self._record("look", looked, "", self.after)
        if self.after >= self.order.target:
            return Outcome.RESIZED, self._note(domain, disk, self.after)
        return Outcome.NOT_YET, Reason.NOVA_NOT_THERE

    def _already(self, domain: Domain, disk: Disk, size: Bytes) -> tuple[Outcome, Reason]:
        """Return the outcome for a size that was there at the first look: was the guest told of it?

        Where nothing shows that, Nova is asked once: its compute resizes to the same size, which tells the guest.
        No trace of that can be seen, so the next order after it believes that Nova has done it.
        """
        known = self.eyes.told.judge_disk(domain, disk, size - self.header)
        if known is Told.YES:
            return Outcome.ALREADY, Reason.SIZE_REACHED
        if not disk.can_be_told or known is Told.NO:
            return Outcome.ALREADY, self._note(domain, disk, size)
        volume_id = self.order.key.volume_id
        self.eyes.told.note(domain.server_id, domain.run, volume_id, size - self.header, Told.NO)
        return Outcome.NOT_YET, Reason.GUEST_NOT_TOLD

    def _note(self, domain: Domain, disk: Disk, size: int) -> Reason:
        told = Told.YES if disk.can_be_told else Told.AT_RESTART
        volume_id = self.order.key.volume_id
        self.eyes.told.note(domain.server_id, domain.run, volume_id, size - self.header, told)
        return Reason.SIZE_REACHED if told is Told.YES else Reason.SEEN_AT_RESTART

    def _size(self, disk: Disk) -> Bytes:
        seen = self.eyes.hypervisor.capacity(self.order.key.server_id, disk.target)
        return Bytes(seen.capacity + self.header)

    def _record(self, name: str, began: float, detail: str, size: int | None = None) -> None:
        seconds = self.eyes.clock() - began
        self.steps.append(StepReport(name=name, ok=True, seconds=seconds, detail=detail, size=size))
