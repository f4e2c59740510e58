# SPDX-License-Identifier: Apache-2.0
"""Guests of a libvirt inside the test's process for the contract suite."""

import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from hostagent.drivers.contract.factory import Ability
from tests.lab.disks import RawFile
from tests.lab.guest import Guest, new_guest
from tests.lab.hypervisor import Hypervisor, open_here, private_hypervisor


class LibvirtContractGuest:
    """One domain."""

    def __init__(self, hypervisor: Hypervisor, connection: Any, guest: Guest) -> None:
        self._hypervisor, self._connection, self.guest = hypervisor, connection, guest
        self.server_id = guest.server_id
        self.volumes = tuple(disk.volume_id for disk in guest.disks)

    def size(self, volume_id: str) -> int:
        """The length of a raw file is what QEMU made it."""
        disk = self.guest.disks[self.volumes.index(volume_id)]
        assert isinstance(disk, RawFile)
        return disk.path.stat().st_size

    def seen(self, volume_id: str) -> list[int]:
        """As the guest printed."""
        return self.guest.sizes(self.guest.targets()[self.volumes.index(volume_id)])

    def reset(self) -> None:
        """The reset button."""
        self._domain().reset(0)

    def unplug(self, volume_id: str) -> None:
        """Libvirt starts the tiny guest without ACPI, and its bus takes no disk out."""
        raise NotImplementedError

    def freeze(self) -> None:
        """Stop QEMU's process."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def agent_answers(self, text: bytes | None) -> None:
        """No agent can be played behind libvirt's channel."""
        raise NotImplementedError

    def stop(self) -> None:
        """Kill QEMU; libvirt notices."""
        self._signal(signal.SIGKILL)

    def _domain(self) -> Any:
        return self._connection.lookupByUUIDString(self.server_id)

    def _signal(self, number: int) -> None:
        pid = self._hypervisor.pids().get(self.guest.name)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


class LibvirtFactory:
    """Domains of one embedded libvirt."""

    can = frozenset({Ability.FREEZE, Ability.RESET, Ability.SEE, Ability.SHARE})

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._directory = Path(tempfile.mkdtemp(prefix="eb-"))
        self._stack.callback(shutil.rmtree, self._directory, ignore_errors=True)
        self._hypervisor = self._stack.enter_context(private_hypervisor(self._directory / "lv"))
        self._connection = open_here(self._hypervisor)

    def options(self) -> Mapping[str, Mapping[str, Any]]:
        """Short limits: a frozen guest costs one."""
        return {"hostagent": {"libvirt_uri": self._hypervisor.uri, "libvirt_limit": 8.0}}

    def start(
        self, sizes: list[int], *, volumes: list[str] | None = None, bus: str = "notifying", agent: bool = False
    ) -> LibvirtContractGuest:
        """See ContractFactory."""
        assert (bus, agent) == ("notifying", False)
        ids = volumes or [str(uuid.uuid4()) for _ in sizes]
        disks = [
            RawFile(self._directory / volume_id, size, volume_id=volume_id)
            for size, volume_id in zip(sizes, ids, strict=True)
        ]
        guest = new_guest(disks, self._directory)
        xml = guest.xml().replace("<on_reboot>destroy", "<on_reboot>restart")  # else a reset ends the guest
        xml = xml.replace("</disk>", "<shareable/></disk>")  # Cinder's multiattach, as Nova writes it
        self._connection.createXML(xml, 0)
        guest.wait_ready()
        return LibvirtContractGuest(self._hypervisor, self._connection, guest)

    def close(self) -> None:
        """End the guests and remove the directory."""
        self._stack.close()
