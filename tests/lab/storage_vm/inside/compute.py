# SPDX-License-Identifier: Apache-2.0
"""What nova-compute did before our agent comes: volumes connected by os-brick, guests with them in libvirt."""

import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from tests.lab.disks import Disk, disk_xml
from tests.lab.guest import Guest, new_guest
from tests.lab.hypervisor import Hypervisor, open_here
from tests.lab.storage_vm.inside.targets import STATE
from tests.lab.waiting import until

_BOOTED_WITHIN: Final = 120.0
_SEEN_WITHIN: Final = 1200.0  # seconds from the guest's boot: for a guest that never boots


class Volume(Protocol):
    """A volume of one of the targets."""

    volume_id: str

    @property
    def connection(self) -> dict[str, Any]:
        """{driver_volume_type, data} as Cinder gives it."""

    def grow(self, size: int) -> None:
        """What the array does on an extend, to `size` bytes."""


@dataclass(slots=True, kw_only=True)
class Attached:
    """A volume as a disk of a guest, by the path Nova would write into the domain.

    `hidden`: bytes of the volume that the guest does not see.
    """

    volume_id: str
    path: str
    hidden: int = 0

    def xml(self, target: str) -> str:
        """The <disk> element."""
        return disk_xml(kind="block", source=self.path, driver="raw", target=target, serial=self.volume_id)

    def grow(self, size: int) -> None:
        """The target grows it."""

    def close(self) -> None:
        """Nothing is held."""


def set_up_brick() -> None:
    """os-brick as nova-compute has it, in this process."""
    import os_brick  # noqa: PLC0415 - takes seconds, and runs beside other things
    from os_brick import privileged  # noqa: PLC0415
    from oslo_concurrency import lockutils  # noqa: PLC0415
    from oslo_config import cfg  # noqa: PLC0415

    lockutils.set_defaults(str(STATE))
    os_brick.setup(cfg.CONF)
    privileged.default.set_client_mode(False)


def connect(volume: Volume, *, multipath: bool, encrypted: bool = False) -> Attached:
    """os-brick's connect_volume; of an encrypted volume the path is a symlink of its own, for the map to come."""
    brick, data = _brick(volume, multipath=multipath, encrypted=encrypted)
    return Attached(volume_id=volume.volume_id, path=brick.connect_volume(data)["path"])


def _brick(volume: Volume, *, multipath: bool, encrypted: bool) -> tuple[Any, dict[str, Any]]:
    """Return os-brick's connector and the properties of the connection as Nova has them: not through JSON."""
    from os_brick.initiator import connector  # noqa: PLC0415 - see above

    connection = volume.connection
    brick = connector.InitiatorConnector.factory(
        connection["driver_volume_type"].upper(), "sudo", use_multipath=multipath
    )
    data = {**connection["data"], "encrypted": encrypted}
    if isinstance(data.get("ns_id"), int):
        data["ns_id"] = str(data["ns_id"])
    return brick, data


def disconnect(volume: Volume, path: str) -> None:
    """os-brick's disconnect_volume, as Nova calls it at a detach."""
    brick, data = _brick(volume, multipath=False, encrypted=False)
    brick.disconnect_volume(data, {"type": "block", "path": path}, force=True, ignore_errors=True)


class Compute:
    """Guests."""

    def __init__(self) -> None:
        self.hypervisor = Hypervisor(STATE / "lv")
        self.connection = open_here(self.hypervisor)

    def boot(self, *disks: Disk) -> "Running":
        """A guest that runs, defined, so that it is still there when it is off."""
        guest = new_guest(disks, STATE, server_id=str(uuid.uuid4()))
        domain = self.connection.defineXML(guest.xml())
        domain.create()
        began = time.monotonic()
        while not guest.sizes() and time.monotonic() - began < _BOOTED_WITHIN:
            time.sleep(0.1)
        return Running(guest=guest, domain=domain)

    @staticmethod
    def until(file: str, text: str, *, seconds: float = 30) -> None:
        """Wait until a file of sysfs says so."""
        Compute.until_any([file], {text}, seconds=seconds)

    @staticmethod
    def until_any(files: list[str], texts: set[str], *, seconds: float = 30) -> None:
        """Wait until one of them says one of these."""
        until(lambda: any(_text(file) in texts for file in files), f"{files}: {texts}", seconds=seconds)


def _text(file: str) -> str:
    try:
        return Path(file).read_text().strip()
    except OSError:
        return ""


@dataclass(slots=True, kw_only=True)
class Running:
    """A guest and its domain."""

    guest: Guest
    domain: Any

    def start(self) -> None:
        """Start it again and wait until it has booted, which takes as long as the machine is busy."""
        self.guest.console.unlink(missing_ok=True)
        self.domain.create()
        began = time.monotonic()
        while not self.guest.sizes() and time.monotonic() - began < _BOOTED_WITHIN:
            time.sleep(0.1)

    def shows(self, target: str = "vda") -> int:
        """The size the guest itself printed last."""
        return (self.guest.sizes(target) or [0])[-1]

    def prints(self, size: int, target: str = "vda") -> int:
        """The size the guest itself printed last, once it is `size` or a while has passed."""
        with suppress(TimeoutError):
            self.guest.wait_size(size, target, seconds=_SEEN_WITHIN)
        return self.shows(target)
