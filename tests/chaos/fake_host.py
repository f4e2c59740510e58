# SPDX-License-Identifier: Apache-2.0
"""A host that is played: a virConnect over a ledger, with the manners of libvirt 9.0 and QEMU 7.2.

blockResize makes a disk smaller when it is told so, without an error, as the real one does with a qcow2 file. Calls
take a while; now and then one hangs for longer than the agent waits, and then does what it was asked after all.
"""

import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import libvirt

from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.devices.image import FileStrategy
from hostagent.domain import Disk as DomainDisk
from hostagent.drivers.base import DriverTools, HypervisorHost
from hostagent.drivers.libvirt.driver import LibvirtHost
from hostagent.drivers.libvirt.session import Abandoned
from hostagent.errors import StepFailedError
from hostagent.settings import HostAgentSettings
from hostagent.wiring import HostAccess
from tests.chaos.ledger import Ledger
from tests.chaos.libvirt_socket import LibvirtWire, socket_of

LEDGER: Final = "disks.ledger"
HANG: Final = 3.5  # seconds; longer than the agent's libvirt_limit

_NO_DOMAIN: Final = 42
_SYSTEM_ERROR: Final = 38
_FROM_RPC: Final = 7
_RUNNING: Final = (1, 1)
_SECTOR: Final = 512
_LIBVIRT: Final = 9_000_000  # 9.0: takes sizes in bytes, knows no flag against shrinking


class FakeLibvirtError(libvirt.libvirtError):
    """An error with a code, as the binding makes them from libvirt's thread-local one."""

    def __init__(self, code: int, message: str, source: int = 10) -> None:
        super().__init__(message)
        self.err = (code, source, message, 2, None, None, None, -1, -1)


class Manners:
    """How long a call takes, and what goes wrong in it; `rng` is this process's own."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def take(self, most: float) -> None:
        """Be busy for up to `most` seconds; one call in 300 hangs."""
        time.sleep(HANG if self._rng.random() < 1 / 300 else self._rng.uniform(0, most))

    def fails(self, share: float) -> bool:
        """Whether this call is one of those that fail."""
        return self._rng.random() < share


def _asked(wire: LibvirtWire) -> None:
    """Wait for libvirtd, as every call does; raises FakeLibvirtError."""
    try:
        wire.call()
    except OSError as ex:
        raise FakeLibvirtError(_SYSTEM_ERROR, f"Cannot recv data: {ex}", _FROM_RPC) from ex


class FakeDomain:
    """A virDomain: a running guest and its disks."""

    def __init__(
        self,
        server_id: str,
        volumes: Sequence[str],
        ledger: Ledger,
        manners: Manners,
        wire: LibvirtWire | None = None,
    ) -> None:
        self._wire = wire or LibvirtWire(None)
        self._of = server_id, volumes, ledger, manners
        self._server_id = server_id
        self._volumes = {f"vd{n}": volume_id for n, volume_id in enumerate(volumes)}
        self._ledger = ledger
        self._manners = manners

    def over(self, wire: LibvirtWire) -> "FakeDomain":
        """Return the same domain of another connection."""
        return FakeDomain(*self._of, wire)

    def UUIDString(self) -> str:  # noqa: N802 - libvirt's name
        return self._server_id

    def state(self, _flags: int) -> tuple[int, int]:
        _asked(self._wire)
        return _RUNNING

    def XMLDesc(self, _flags: int) -> str:  # noqa: N802 - libvirt's name
        disks = "".join(
            f"<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
            f"<source file='/volumes/{volume_id}'/>"
            f"<target dev='{target}' bus='virtio'/><serial>{volume_id}</serial></disk>"
            for target, volume_id in self._volumes.items()
        )
        return f"<domain><devices>{disks}</devices></domain>"

    def blockInfo(self, target: str) -> list[int]:  # noqa: N802 - libvirt's name
        _asked(self._wire)
        self._manners.take(0.02)
        return [self._ledger.size((self._server_id, self._volumes[target])), 0, 0]

    def connect(self) -> "FakeConnection":
        return FakeConnection({})

    def jobStats(self) -> dict[str, int]:  # noqa: N802 - libvirt's name
        return {"type": 0}

    def blockResize(self, target: str, size: int, flags: int) -> int:  # noqa: N802 - libvirt's name
        _asked(self._wire)
        if self._manners.fails(0.02):
            raise FakeLibvirtError(1, "unable to execute QEMU command 'block_resize': Device is in use")
        self._manners.take(0.2)
        wanted = size if flags & 1 else size * 1024
        self._ledger.put((self._server_id, self._volumes[target]), -(-wanted // _SECTOR) * _SECTOR)
        self._manners.take(0.05)
        return 0


class FakeConnection:
    """A virConnect."""

    def __init__(self, domains: Mapping[str, FakeDomain], wire: LibvirtWire | None = None) -> None:
        self._domains = domains
        self._wire = wire or LibvirtWire(None)

    def lookupByUUIDString(self, server_id: str) -> FakeDomain:  # noqa: N802 - libvirt's name
        _asked(self._wire)
        try:
            return self._domains[server_id].over(self._wire)
        except KeyError as ex:
            raise FakeLibvirtError(_NO_DOMAIN, "Domain not found") from ex

    def listAllDomains(self, _flags: int) -> list[FakeDomain]:  # noqa: N802 - libvirt's name
        _asked(self._wire)
        return [domain.over(self._wire) for domain in self._domains.values()]

    def domainEventRegisterAny(self, *_arguments: Any) -> int:  # noqa: N802 - libvirt's name
        return 0

    def isAlive(self) -> int:  # noqa: N802 - libvirt's name
        return int(self._wire.alive)

    def getLibVersion(self) -> int:  # noqa: N802 - libvirt's name
        return _LIBVIRT

    def close(self) -> int:
        self._wire.close()
        return 0


class SlowFiles(FileStrategy):
    """Files on a share whose backend is late or fails at times."""

    def __init__(self, manners: Manners) -> None:
        self._manners = manners

    def refresh(self, disk: DomainDisk, connection: Mapping[str, Any] | None) -> None:
        """See Strategy. A rescan takes its time: an order that is on its way must be there to be overtaken."""
        self._manners.take(1.0)
        if self._manners.fails(0.02):
            raise StepFailedError(Outcome.BRICK_FAILED, Reason.BRICK_RAISED, "chaos")
        super().refresh(disk, connection)


def fake_host(settings: HostAgentSettings, manners: Manners | None = None) -> HostAccess:
    """The host of this agent: its ledger lies in its state_path, which the URI names."""
    libvirt_settings = settings.driver.settings
    state = Path(libvirt_settings.uri.removeprefix("chaos://"))
    ledger = Ledger(state / LEDGER)
    manners = manners or Manners(random.Random())
    attached: dict[str, list[str]] = {}
    for server_id, volume_id in ledger.disks():
        attached.setdefault(server_id, []).append(volume_id)
    domains = {
        server_id: FakeDomain(server_id, volumes, ledger, manners) for server_id, volumes in attached.items()
    }

    def connect(_uri: str) -> FakeConnection:
        try:
            return FakeConnection(domains, LibvirtWire(socket_of(state)))
        except OSError as ex:
            raise FakeLibvirtError(_SYSTEM_ERROR, f"Failed to connect socket: {ex}", _FROM_RPC) from ex

    def played(tools: DriverTools) -> HypervisorHost:
        abandoned = Abandoned(libvirt_settings.abandoned_max, tools.health, tools.hanging)
        return LibvirtHost(settings=libvirt_settings, abandoned=abandoned, connect=connect)

    return HostAccess(open_hypervisor=played, strategies=[SlowFiles(manners)])
