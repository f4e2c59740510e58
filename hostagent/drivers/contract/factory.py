# SPDX-License-Identifier: Apache-2.0
"""Guests for the contract suite, made by the package of a driver: real ones, and what hosts do to them.

The package names its factory by an entry point of extend_bridge.contract with the driver's name. Each method may be
slow; each must end. A factory that cannot do a thing leaves its name out of `can`; the suite then shows promises
that stay unproved as skipped.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Protocol


class Ability(StrEnum):
    """Things that a factory may be able to do to its guests."""

    FREEZE = "freeze"  # freeze(): the hypervisor of one guest stops answering; thaw() lets it go on
    RESET = "reset"  # reset(): the guest starts again in the same run of its hypervisor
    UNPLUG = "unplug"  # unplug(): one disk leaves the running guest
    SEE = "see"  # seen(): the sizes that the guest itself has noticed
    SHARE = "share"  # start() twice with one volume: two guests have it
    AGENT = "agent"  # a guest started with agent=True answers as agent_answers() says


class ContractGuest(Protocol):
    """One guest that runs. `server_id`: its id, in lower case. `volumes`: the volume ids of its disks, in order."""

    server_id: str
    volumes: tuple[str, ...]

    def size(self, volume_id: str) -> int:
        """Return the bytes of a disk as the hypervisor has it, by another way than the driver."""

    def seen(self, volume_id: str) -> list[int]:
        """Return all sizes that the guest itself has noticed of a disk so far."""

    def reset(self) -> None:
        """Start the guest again, as its reset button does."""

    def unplug(self, volume_id: str) -> None:
        """Take a disk out of the running guest; return once it has left."""

    def freeze(self) -> None:
        """Have the hypervisor of this guest stop answering."""

    def thaw(self) -> None:
        """Have it go on."""

    def agent_answers(self, text: bytes | None) -> None:
        """Have the guest's agent send these bytes to the next command, None for no answer at all."""

    def stop(self) -> None:
        """End the guest, also a frozen one; nothing of it stays on the host."""


class ContractFactory(Protocol):
    """Guests of one driver."""

    can: frozenset[Ability]

    def options(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the configuration of a driver that sees this factory's guests: {group: {option: value}}."""

    def start(
        self, sizes: list[int], *, volumes: list[str] | None = None, bus: str = "notifying", agent: bool = False
    ) -> ContractGuest:
        """Start a guest with raw files as disks, of these sizes in bytes, under these or new volume ids.

        Return once the guest has noticed its disks. `volumes` of an earlier guest are shared with it.
        """

    def close(self) -> None:
        """End all guests and give everything back."""
