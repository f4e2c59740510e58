# SPDX-License-Identifier: Apache-2.0
"""A hypervisor, os-brick and strategies that behave as the real ones were measured to, in memory.

blockResize of the fake is as dangerous as libvirt's: told a smaller size, it truncates files and says nothing.
"""

import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Gauge

from bridge.core.extend import Bytes, ExtendKey
from bridge.core.inventory import GuestState
from bridge.core.messages import Order
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from bridge.runtime.health import Health
from hostagent.domain import Disk, Domain, NetworkSource, SourceKind
from hostagent.drivers.base import Capacity, GuestHandle
from hostagent.drivers.libvirt import errors
from hostagent.drivers.libvirt.guest import RESIZE, LibvirtGuest, read_capacity
from hostagent.errors import StepFailedError
from hostagent.extend import ExtendTools
from hostagent.refresh import DeviceWait
from hostagent.storage_reads import StorageReads

T = TypeVar("T")
MIB = 1 << 20


class FakeLibvirtError(Exception):
    """As libvirt.libvirtError, as far as it is read."""

    def __init__(self, code: int, message: str, domain: int = 10) -> None:
        super().__init__(message)
        self._code, self._message, self._domain = code, message, domain

    def get_error_code(self) -> int:
        return self._code

    def get_error_domain(self) -> int:
        return self._domain

    def get_error_message(self) -> str:
        return self._message


@dataclass
class FakeDisk:
    """`capacity`: what the guest sees; `source`: the device or file under it."""

    volume_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    kind: SourceKind = SourceKind.FILE
    driver_format: str = "raw"
    capacity: int = 64 * MIB
    source: int = 64 * MIB
    encrypted: bool = False
    path: str = "/dev/null"
    job: bool = False
    notifies: bool = True
    read_only: bool = False
    cdrom: bool = False
    refuse: FakeLibvirtError | None = None
    sizes: list[int] = field(default_factory=list)  # every capacity it ever had
    files: list[int] = field(default_factory=list)  # and every length of its file

    def resize(self, size: int) -> None:
        """libvirt 9.0 with QEMU 7.2, flags=BYTES."""
        if self.refuse is not None:
            raise self.refuse
        if self.job:
            raise FakeLibvirtError(
                1, "internal error: unable to execute QEMU command 'block_resize': Device is in use"
            )
        if self.kind is SourceKind.BLOCK:
            if size > self.source:
                raise FakeLibvirtError(1, "unable to execute QEMU command 'block_resize': Cannot grow device files")
            self.capacity = self.source
        else:
            self.capacity = self.source = -(-size // 512) * 512
        self.sizes.append(self.capacity)
        self.files.append(self.source)


class FakeDomain:
    """The calls a resize needs."""

    def __init__(self, hypervisor: "FakeHypervisor", disks: list[FakeDisk]) -> None:
        self._hypervisor = hypervisor
        self.disks = {f"vd{chr(97 + n)}": disk for n, disk in enumerate(disks)}
        self.state = GuestState.ACTIVE
        self.saved = self.left = False
        self.run = "1"
        self.job: dict[str, object] = {"type": 0}

    def jobStats(self) -> dict[str, object]:  # noqa: N802
        return self.job

    def connect(self) -> "FakeDomain":
        return self

    def getLibVersion(self) -> int:  # noqa: N802
        return self._hypervisor.version

    def XMLDesc(self, flags: int) -> str:  # noqa: N802
        del flags
        attributes = {SourceKind.FILE: "file", SourceKind.BLOCK: "dev", SourceKind.NETWORK: "name"}
        disks = "".join(
            f"<disk type='{disk.kind}'><driver type='{disk.driver_format}'/>"
            f"<source {attributes[disk.kind]}='{disk.path}'/><target dev='{target}'/>"
            f"<serial>{disk.volume_id}</serial></disk>"
            for target, disk in self.disks.items()
        )
        return f"<domain id='{self.run}'><devices>{disks}</devices></domain>"

    def blockInfo(self, target: str) -> list[int]:  # noqa: N802
        self._hypervisor.calls.append(f"blockInfo {target}")
        self._hypervisor.between(self)
        disk = self.disks[target]
        return [disk.capacity, 0, disk.source]

    def blockResize(self, target: str, size: int, flags: int) -> int:  # noqa: N802
        self._hypervisor.calls.append(f"blockResize {target} {size}")
        if flags & ~(1 if self._hypervisor.version < 12_003_000 else 5):
            raise FakeLibvirtError(8, f"unsupported flags (0x{flags:x}) in function qemuDomainBlockResize")
        self._hypervisor.just_before_resize(self)
        if flags & 4 and size < self.disks[target].capacity:
            raise FakeLibvirtError(55, "Requested operation is not valid: shrinking of a disk is not allowed")
        if self.state is GuestState.OFF:
            raise FakeLibvirtError(55, "Requested operation is not valid: domain is not running")
        self.disks[target].resize(size if flags & 1 else size * 1024)
        return 0


class FakeHypervisor:
    """One host. `between` runs before each blockInfo: what others do to the disks meanwhile."""

    def __init__(self) -> None:
        self.domains: dict[str, FakeDomain] = {}
        self.calls: list[str] = []
        self.between: Callable[[FakeDomain], None] = lambda _domain: None
        self.just_before_resize: Callable[[FakeDomain], None] = lambda _domain: None
        self.version = 9_000_000
        self.down: StepFailedError | None = None
        self.lock = threading.RLock()

    def add(self, *disks: FakeDisk, state: GuestState = GuestState.ACTIVE) -> str:
        """A guest with these disks; its id."""
        server_id = str(uuid.uuid4())
        self.domains[server_id] = FakeDomain(self, list(disks))
        self.domains[server_id].state = state
        return server_id

    def domain(self, server_id: str) -> Domain | None:
        if self.down is not None:
            raise self.down
        found = self.domains.get(server_id)
        if found is None:
            return None
        disks = tuple(
            Disk(
                target=target, kind=disk.kind, source=disk.path, driver_format=disk.driver_format,
                volume_id=disk.volume_id, encrypted=disk.encrypted, notifies=disk.notifies,
                read_only=disk.read_only, cdrom=disk.cdrom,
                network=NetworkSource(protocol="rbd") if disk.kind is SourceKind.NETWORK else None,
            )
            for target, disk in found.disks.items()
        )  # fmt: skip
        return Domain(
            server_id=server_id, state=found.state, disks=disks, run=found.run, saved=found.saved, left=found.left
        )

    def capacity(self, server_id: str, target: str) -> Capacity:
        with self.lock:
            try:
                return read_capacity(self._lookup(server_id), target)
            except FakeLibvirtError as ex:
                raise errors.stopped(ex, "blockInfo") from ex

    def on_guest(self, server_id: str, work: Callable[[GuestHandle, Callable[[], bool]], T]) -> T:
        with self.lock:
            try:
                return work(LibvirtGuest(self._lookup(server_id)), lambda: True)
            except FakeLibvirtError as ex:
                raise errors.stopped(ex, RESIZE) from ex

    def _lookup(self, server_id: str) -> FakeDomain:
        if server_id not in self.domains:
            raise FakeLibvirtError(42, "Domain not found")
        return self.domains[server_id]


@dataclass(slots=True)
class FakeStrategy:
    """A block device that has `reach` bytes after so many refreshes or looks."""

    disk: FakeDisk
    grows_to: int | None = None
    after_looks: int = 0
    looks: int = 0
    refreshes: int = 0
    fails: StepFailedError | None = None
    name: str = "fake"

    def takes(self, disk: Disk, connection: Mapping[str, Any] | None) -> bool:
        return disk.kind is SourceKind.BLOCK

    def refresh(self, disk: Disk, connection: Mapping[str, Any] | None) -> int | None:
        if self.fails is not None:
            raise self.fails
        self.refreshes += 1
        return self.size(disk)

    def size(self, disk: Disk) -> int | None:
        self.looks += 1
        if self.grows_to is not None and self.looks > self.after_looks:
            self.disk.source = max(self.disk.source, self.grows_to)
        return self.disk.source


class FakeTime:
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.stopping = False

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> bool:
        self.now += seconds
        return self.stopping


def order(server_id: str, volume_id: str, target: int, *, gen: int = 1, attempt_id: str | None = None) -> Order:
    """An order for one disk."""
    return Order(
        attempt_id=attempt_id or str(uuid.uuid4()),
        key=ExtendKey(server_id, volume_id),
        gen=gen,
        target=Bytes(target),
    )


def tools(hypervisor: FakeHypervisor, *strategies: Any, wait: float = 10.0) -> ExtendTools:
    """Tools with fake time."""
    time = FakeTime()
    return ExtendTools(
        hypervisor=hypervisor,
        strategies=strategies,
        patience=DeviceWait(device_wait=wait, nudge_every=3.0),
        sleep=time.sleep,
        clock=time.clock,
    )


def brick_failed() -> StepFailedError:
    """What a killed os-brick process raises."""
    return StepFailedError(Outcome.BRICK_FAILED, Reason.BRICK_DIED)


def storage_reads(limit: float = 30.0) -> StorageReads:
    """Bounded reads whose health nobody looks at."""
    gauge = Gauge("reads", "reads", registry=CollectorRegistry())
    return StorageReads(limit=limit, most=8, health=Health(), gauge=gauge)
