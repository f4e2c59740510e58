# SPDX-License-Identifier: Apache-2.0
"""The seam's session over the sockets of this host. All sessions share the connections."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from bridge.core.inventory import GuestState
from bridge.core.reasons import Reason
from hostagent.domain import Domain
from hostagent.drivers.base import Capacity, GuestEvents, GuestHandle, GuestList, Watch
from hostagent.drivers.qmp import agent
from hostagent.drivers.qmp.errors import QmpError, stopped
from hostagent.drivers.qmp.guest import QmpGuest
from hostagent.drivers.qmp.host import QmpSockets, absent
from hostagent.errors import StepFailedError

T = TypeVar("T")


class QmpWatch:
    """The events of all sockets. A connection that is lost is told as an event of its guest."""

    def stands(self) -> bool:
        """Return True: the threads that read the events live as long as the agent."""
        return True


class QmpSession:
    """Plain QEMU for one thread."""

    def __init__(
        self, sockets: QmpSockets, *, file_size: Callable[[str], int], agent_suffix: str, read_only: bool
    ) -> None:
        self._sockets = sockets
        self._file_size = file_size
        self._agent_suffix = agent_suffix
        self._read_only = read_only
        self._watch: QmpWatch | None = None

    def guests(self) -> GuestList:
        """Return the guests of all sockets."""
        return self._sockets.guests()

    def domain(self, server_id: str) -> Domain | None:
        """Return a guest as it is now. A QEMU that has ended left nothing: its guest is not here."""

        def look(guest: QmpGuest) -> Domain:
            state, found = guest.state(), guest.look()
            return Domain(server_id=server_id, state=state, disks=found.disks, run=found.run)

        return self._ask(server_id, look)

    def state(self, server_id: str) -> GuestState | None:
        """Return a guest's state alone."""
        return self._ask(server_id, QmpGuest.state)

    def capacity(self, server_id: str, target: str) -> Capacity:
        """Return the sizes of one disk now."""
        return self._required(self._ask(server_id, lambda guest: guest.capacity(target)))

    def on_guest(self, server_id: str, work: Callable[[GuestHandle, Callable[[], bool]], T]) -> T:
        """Hold the guest's monitor for the whole of `work`, which runs a second time after a reconnect."""
        [result] = self._required(self._ask(server_id, lambda guest: [work(guest, guest.in_time)]))
        return result

    def watch(self, events: GuestEvents) -> Watch:
        """Deliver the events of all sockets."""
        if self._watch is None:
            self._sockets.watch(events)
            self._watch = QmpWatch()
        return self._watch

    def agent(self, server_id: str, command: Mapping[str, Any], limit: float) -> Any:
        """Ask the agent on the socket beside the guest's monitor."""
        with self._sockets.held(server_id) as held:
            if held is None:
                raise absent()
            path = held[0].path
        return agent.ask(str(Path(path).with_suffix(self._agent_suffix)), command, limit)

    def secret(self, secret_id: str) -> bytes | None:
        """Return None, because QEMU returns no secrets."""
        del secret_id
        return None

    def close(self) -> None:
        """Do nothing, because all sessions share the connections."""

    def _ask(self, server_id: str, ask: Callable[[QmpGuest], T]) -> T | None:
        """Return the answer, None where the guest is not here. A lost connection is worth one more try."""
        try:
            return self._ask_once(server_id, ask)
        except StepFailedError as ex:
            if ex.reason is not Reason.HYPERVISOR_DOWN:
                raise
        return self._ask_once(server_id, ask)

    def _ask_once(self, server_id: str, ask: Callable[[QmpGuest], T]) -> T | None:
        with self._sockets.held(server_id) as held:
            if held is None:
                return None
            monitor, deadline = held
            try:
                return ask(QmpGuest(monitor, deadline, self._file_size, read_only=self._read_only))
            except QmpError as ex:
                raise stopped(ex) from ex

    @staticmethod
    def _required(found: T | None) -> T:
        if found is None:
            raise absent()
        return found
