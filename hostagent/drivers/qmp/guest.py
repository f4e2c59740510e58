# SPDX-License-Identifier: Apache-2.0
"""One guest's QEMU within one hold of its monitor: what the guard looks at, and the one block_resize."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from bridge.core.inventory import GuestState
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.domain import Disk
from hostagent.drivers.base import Capacity, GuestDisks, checked_capacity
from hostagent.drivers.qmp.disks import (
    DeviceFacts,
    QemuDisk,
    device_path,
    disk_blocks,
    protocol_drivers,
    read_disk,
)
from hostagent.drivers.qmp.errors import RESIZE, QmpError
from hostagent.drivers.qmp.monitor import Monitor
from hostagent.drivers.qmp.wire import QmpDeadline, WireSilentError
from hostagent.errors import StepFailedError

_INCOMING: Final = frozenset({"inmigrate", "postmigrate"})
"""The guest is, or is about to be, in another QEMU: it comes in here, or has left."""
_LEAVES: Final = frozenset({"finish-migrate", "save-vm", "restore-vm", "colo"})
_MIGRATES: Final = frozenset(
    {"setup", "active", "pre-switchover", "device", "postcopy-active", "postcopy-device", "postcopy-paused",
     "postcopy-recover", "wait-unplug", "cancelling"}
)  # fmt: skip


class QmpGuest:
    """The calls of the guard, over a monitor that is held. `file_size`: DriverTools.file_size."""

    never_shrinks = False
    """QEMU's block_resize has no flag against shrinking."""

    def __init__(
        self, monitor: Monitor, deadline: QmpDeadline, file_size: Callable[[str], int], *, read_only: bool
    ) -> None:
        self._monitor = monitor
        self._deadline = deadline
        self._file_size = file_size
        self._read_only = read_only

    def in_time(self) -> bool:
        """Return whether the caller still waits for this call."""
        try:
            return self._deadline.left() > 0
        except WireSilentError:
            return False

    def look(self) -> GuestDisks:
        """Read the disks that the guest has now."""
        return GuestDisks(disks=tuple(found.disk for found in self._disks(self._facts)), run=self._monitor.run)

    def state(self) -> GuestState:
        """Return the guest's state; a guest that is paused holds its disks open."""
        return GuestState.INCOMING if self._status() in _INCOMING else GuestState.ACTIVE

    def capacity(self, target: str) -> Capacity:
        """Read the sizes of one disk; of a raw one the source's own, which QEMU does not look at by itself."""
        found = self._find(target)
        physical = found.capacity if found.source_of_size is None else self._file_size(found.source_of_size)
        return checked_capacity(found.capacity, physical, target)

    def check_stays(self) -> None:
        """Raise StepFailedError while the guest is being migrated or saved."""
        status = self._ask("query-migrate")
        migrates = isinstance(status, dict) and status.get("status") in _MIGRATES
        if migrates or self._status() in _LEAVES | _INCOMING:
            raise StepFailedError(Outcome.BUSY, Reason.DOMAIN_JOB)

    def resize(self, disk: Disk, size: int) -> None:
        """Resize a disk to exactly this size."""
        if self._read_only:
            raise StepFailedError(
                Outcome.UNSUPPORTED,
                Reason.RESIZE_UNSUPPORTED,
                "[hostagent] read_only is true: this agent changes nothing",
            )
        found = self._find(disk.target)
        which = {"node-name": found.node} if found.node else {"device": found.device}
        self._ask(RESIZE, {**which, "size": size})

    def _disks(self, facts: Callable[[str], DeviceFacts]) -> tuple[QemuDisk, ...]:
        drivers = protocol_drivers(self._ask("query-named-block-nodes", {"flat": True}))
        blocks = disk_blocks(self._ask("query-block"))
        return tuple(read_disk(block, drivers, facts(device_path(block["qdev"]))) for block in blocks)

    def _find(self, target: str) -> QemuDisk:
        found = [disk for disk in self._disks(lambda _path: DeviceFacts()) if disk.disk.target == target]
        if len(found) != 1:
            raise StepFailedError(Outcome.NOT_ATTACHED, Reason.DISK_ABSENT, f"the guest has no disk {target}")
        return found[0]

    def _facts(self, path: str) -> DeviceFacts:
        bus = self._property(path, "parent_bus")
        return DeviceFacts(
            type=self._property(path, "type"),
            serial=self._property(path, "serial"),
            bus_owner=self._property(bus.rpartition("/")[0], "type") if bus.startswith("/") else "",
        )

    def _property(self, path: str, name: str) -> str:
        """Return a property's text; empty where the device has none of that name."""
        try:
            value = self._ask("qom-get", {"path": path, "property": name})
        except QmpError:
            return ""
        return value if isinstance(value, str) else ""

    def _status(self) -> str:
        status = self._ask("query-status")
        return str(status.get("status", "")) if isinstance(status, dict) else ""

    def _ask(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        return self._monitor.execute(self._deadline, command, arguments)
