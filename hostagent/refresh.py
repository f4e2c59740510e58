# SPDX-License-Identifier: Apache-2.0
"""The refresh of a host's device: the device that was refreshed last, and the times between rescans."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bridge.core.messages import Order
from hostagent.domain import Disk

_FIRST_LOOK: Final = 0.1  # seconds; doubled at each look at a device that is not there yet
_LAST_LOOK: Final = 2.0
_FRESH: Final = 5.0  # seconds a refresh is good for


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceWait:
    """Seconds the host's device may take to show the new size, and seconds between rescans meanwhile."""

    device_wait: float
    nudge_every: float


@dataclass(slots=True)
class Refreshed:
    """The device that this worker refreshed last: the next guest of a shared volume finds it done.

    A worker takes all orders of a volume together, so one memory of a few seconds is enough. Other connection data
    are another claim of what the device is, which only a refresh checks.
    """

    volume_id: str = ""
    source: str | None = None
    connection: Mapping[str, Any] | None = None
    until: float = 0.0

    def covers(self, order: Order, disk: Disk, now: float) -> bool:
        """Return whether this device, by this name, was refreshed for this volume and connection a moment ago."""
        return (
            disk.source is not None
            and (order.key.volume_id, disk.source) == (self.volume_id, self.source)
            and order.connection == self.connection
            and now < self.until
        )

    def note(self, order: Order, disk: Disk, now: float) -> None:
        """Remember that this order's device was refreshed now."""
        self.volume_id, self.source, self.connection = order.key.volume_id, disk.source, order.connection
        self.until = now + _FRESH


def looks(wait: DeviceWait, *, sleep: Callable[[float], bool], clock: Callable[[], float]) -> Iterator[bool]:
    """Yield at each look at the device until the wait or the agent ends: True where a rescan is due as well."""
    pause, began = _FIRST_LOOK, clock()
    rescan_at = began + wait.nudge_every
    while (left := began + wait.device_wait - clock()) > 0:
        if sleep(min(pause, left)):
            return
        pause = min(pause * 2, _LAST_LOOK)
        due = clock() >= rescan_at
        yield due
        if due:
            rescan_at = clock() + wait.nudge_every
