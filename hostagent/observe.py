# SPDX-License-Identifier: Apache-2.0
"""An order to an agent that only looks: whether the guest has the size by now. Beside Nova, whose compute extends.

Nothing here can change a disk: it asks for a domain and for its sizes, over a connection that libvirt itself opened
for reading. An import contract keeps the resize and os-brick out of it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from bridge.core.extend import Bytes
from bridge.core.messages import GuestState, Order, Report, StepReport
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.attempt import find_disk, reported
from hostagent.domain import Disk
from hostagent.ports import HeaderOf, Hypervisor

_LOOK_EVERY: Final = 0.5  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserveTools:
    """What is looked with: `wait` seconds for the size; `sleep(seconds)` returns whether the agent is stopping."""

    hypervisor: Hypervisor
    wait: float
    sleep: Callable[[float], bool]
    clock: Callable[[], float]
    hidden: HeaderOf = lambda _disk: 0  # bytes of the volume that the guest does not see


def observe(order: Order, eyes: ObserveTools) -> Report:
    """Look until the guest has the size or patience is over. Never raises."""
    return reported(order, _Observation(order, eyes))


@dataclass(slots=True)
class _Observation:
    order: Order
    eyes: ObserveTools
    steps: list[StepReport] = field(default_factory=list)
    before: Bytes | None = None
    after: Bytes | None = None
    header: int = 0  # bytes of the volume that the guest does not see

    def run(self) -> tuple[Outcome, Reason]:
        """The outcome; what libvirt does not tell is raised."""
        began = self.eyes.clock()
        domain, disk = find_disk(self.eyes.hypervisor, self.order.key)
        self._say("find", began, f"{domain.state} {disk.target}")
        if domain.state is GuestState.OFF:
            return Outcome.GUEST_OFF, Reason.DOMAIN_OFF
        looked = self.eyes.clock()
        self.header = self.eyes.hidden(disk)
        self.before = self.after = self._size(disk)
        if self.before >= self.order.target:
            self._say("look", looked, "", self.before)
            return Outcome.ALREADY, Reason.SIZE_REACHED
        while self.after < self.order.target and self.eyes.clock() - looked < self.eyes.wait:
            if self.eyes.sleep(_LOOK_EVERY):
                break
            self.after = self._size(disk)
        self._say("look", looked, "", self.after)
        if self.after >= self.order.target:
            return Outcome.RESIZED, Reason.SIZE_REACHED
        return Outcome.NOT_YET, Reason.NOVA_NOT_THERE

    def _size(self, disk: Disk) -> Bytes:
        seen = self.eyes.hypervisor.capacity(self.order.key.server_id, disk.target)
        return Bytes(seen.capacity + self.header)

    def _say(self, name: str, began: float, detail: str, size: int | None = None) -> None:
        self.steps.append(
            StepReport(name=name, ok=True, seconds=self.eyes.clock() - began, detail=detail, size=size)
        )
