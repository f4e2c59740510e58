# SPDX-License-Identifier: Apache-2.0
"""The factory of guests for the contract suite."""

import uuid
from collections.abc import Mapping
from typing import Any

from hostagent.drivers.base import GuestArrival
from hostagent.drivers.contract.factory import Ability

from .world import WORLD, MemoryDisk, MemoryGuest, breaks


class OutsideGuest:
    """A guest, and what is done to it."""

    def __init__(self, guest: MemoryGuest) -> None:
        self._guest = guest
        self.server_id = guest.server_id
        self.volumes = tuple(disk.volume_id for disk in guest.disks)

    def size(self, volume_id: str) -> int:
        return self._disk(volume_id).size

    def seen(self, volume_id: str) -> list[int]:
        return self._disk(volume_id).seen

    def reset(self) -> None:
        if not breaks("no_reset"):
            WORLD.tell(lambda heard: heard.arrived(self.server_id, GuestArrival.STARTED))

    def unplug(self, volume_id: str) -> None:
        disk = self._disk(volume_id)
        self._guest.disks.remove(disk)
        if not breaks("no_removal"):
            WORLD.tell(lambda heard: heard.disk_removed(self.server_id, disk.target))

    def freeze(self) -> None:
        self._guest.frozen = True

    def thaw(self) -> None:
        self._guest.frozen = False

    def agent_answers(self, text: bytes | None) -> None:
        self._guest.answer = text

    def stop(self) -> None:
        self.thaw()
        WORLD.guests.pop(self.server_id, None)
        WORLD.gone.append(self.server_id)
        WORLD.tell(lambda heard: heard.changed(self.server_id))

    def _disk(self, volume_id: str) -> MemoryDisk:
        return next(disk for disk in self._guest.disks if disk.volume_id == volume_id)


class Factory:
    """Guests in memory."""

    can = frozenset(Ability)

    def options(self) -> Mapping[str, Mapping[str, Any]]:
        return {"memory": {"place": "there"}}

    def start(
        self, sizes: list[int], *, volumes: list[str] | None = None, bus: str = "notifying", agent: bool = False
    ) -> OutsideGuest:
        del bus
        disks = [
            MemoryDisk(volume_id, f"vd{'abcdef'[number]}", size, [size])
            for number, (volume_id, size) in enumerate(
                zip(volumes or [str(uuid.uuid4()) for _ in sizes], sizes, strict=True)
            )
        ]
        guest = MemoryGuest(str(uuid.uuid4()), disks, agent=agent)
        WORLD.guests[guest.server_id] = guest
        WORLD.tell(lambda heard: heard.changed(guest.server_id))
        return OutsideGuest(guest)

    def close(self) -> None:
        WORLD.guests.clear()
