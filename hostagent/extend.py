# SPDX-License-Identifier: Apache-2.0
"""One order, from finding the disk to reading its new size back. Every step is timed and recorded.

find → before → (already there? tell) → refresh → wait → resize → verify. Nothing is touched before `already there`.
The result of a step is compared with the target before the next begins. Nova's order of work (extend_volume of
its driver), with the checks it leaves out.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from bridge.core.extend import Bytes, is_fixed_overhead
from bridge.core.inventory import GuestState
from bridge.core.messages import Order, Report, StepReport
from bridge.core.outcome import Outcome, Told
from bridge.core.reasons import Reason
from hostagent.attempt import find_disk, reported
from hostagent.devices import choose, crypt
from hostagent.devices.base import Strategy, volume_type
from hostagent.devices.checks import check_identity
from hostagent.devices.headers import LuksHeaders
from hostagent.devices.overlay import OverlayStrategy
from hostagent.devices.sysfs import CryptMap
from hostagent.domain import Disk, Domain, SourceKind
from hostagent.drivers.base import DriverCapabilities, Hypervisor
from hostagent.errors import StepFailedError
from hostagent.knowledge import ToldDisks
from hostagent.ports import DeviceGuard, Encryptor, Images
from hostagent.refresh import DeviceWait, Refreshed, looks
from hostagent.resize import grow


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtendTools:
    """Tools of one worker. `sleep(seconds)` returns whether the agent is stopping.

    `driver`: what the hypervisor's driver can resize. `images`: None where no strategy takes a disk that QEMU's own
    client opens. `encryptor`: None where the operator did not opt in to volumes' keys on this host.
    """

    hypervisor: Hypervisor
    strategies: Sequence[Strategy]
    patience: DeviceWait
    sleep: Callable[[float], bool]
    images: Images | None = None
    encryptor: Encryptor | None = None
    guard: DeviceGuard | None = None
    headers: LuksHeaders | None = None
    driver: DriverCapabilities | None = None
    refreshed: Refreshed = field(default_factory=Refreshed)
    told: ToldDisks = field(default_factory=ToldDisks)
    clock: Callable[[], float] = time.monotonic


def extend(order: Order, tools: ExtendTools) -> Report:
    """Work on one order. Never raises: an error without a name becomes `error`, and its traceback is logged."""
    return reported(order, _ExtendAttempt(order, tools))


@dataclass(slots=True)
class _StepNote:
    """Findings of a step, filled in while it runs."""

    detail: str = ""
    size: int | None = None


@dataclass(slots=True)
class _ExtendAttempt:
    """One order under way. The report's sizes are the volume's.

    `header`: bytes of the volume that the guest does not see. `overhead`: bytes that the device always lacks.
    `source_larger`: the device has more than QEMU shows.

    `mapped`: the dm-crypt map that the domain has as its disk.
    """

    order: Order
    tools: ExtendTools
    steps: list[StepReport] = field(default_factory=list)
    before: Bytes | None = None
    after: Bytes | None = None
    header: int = 0
    overhead: int = 0
    source_larger: bool = False
    mapped: CryptMap | None = None
    domain: Domain | None = None

    def run(self) -> tuple[Outcome, Reason]:
        """Work on the order; return how it ended. Every other end is raised."""
        domain, disk = self._find()
        if domain.saved:
            return Outcome.GUEST_SAVED, Reason.DOMAIN_SAVED
        if disk.luks:
            disk = self._behind_its_header(disk)
        elif (mapped := crypt.map_of(disk)) is not None:
            self._behind_its_map(disk, mapped)
        if domain.state is GuestState.OFF:
            return self._off(disk)
        self.before = self._capacity("before", disk)
        if self.before >= self.order.target:
            self.after = self.before
            self._learn_device(disk)  # while it is good: a later rescan may show another volume under its name
            return Outcome.ALREADY, self._tell(domain, disk, self.before)
        self._check_can_grow(disk)
        strategy = self._strategy(disk)
        if self.tools.driver is not None and (why_not := self.tools.driver.why_not(disk)):
            raise StepFailedError(Outcome.UNSUPPORTED, Reason.RESIZE_UNSUPPORTED, why_not)
        self._refresh(strategy, disk)
        asked = self._resize(disk)
        self.after = self._capacity("verify", disk)
        if self.after + self.overhead < self.order.target:
            raise StepFailedError(
                Outcome.HYPERVISOR_FAILED, Reason.NOT_VERIFIED, f"{self.after} of {self.order.target} bytes"
            )
        reason = self._note(domain, disk, self.after) if asked else self._tell(domain, disk, self.after)
        if self.overhead and reason is Reason.SIZE_REACHED:
            reason = Reason.FIXED_OVERHEAD
        return (Outcome.RESIZED if asked else Outcome.ALREADY), reason

    def _tell(self, domain: Domain, disk: Disk, size: int) -> Reason:
        """Tell the guest of a disk that has the size already, where it can be told; return the reason to report.

        Not the size decides whether the guest knows it: it may have been restored, migrated or reverted meanwhile.
        """
        if not disk.can_be_told:
            return self._cannot_be_told(domain, disk, size)
        if self.source_larger:  # QEMU will take all of the device, so it is checked to be the volume's first
            self._refresh(self._strategy(disk), disk)
        with self._step("tell") as seen:
            try:
                seen.size = grow(
                    self.tools.hypervisor, domain.server_id, disk, size, header=self.header,
                    image_size=self._image_size(disk), tell=True,
                ).before  # fmt: skip
            except StepFailedError as ex:
                if ex.reason is Reason.WOULD_SHRINK:  # another call has made it larger, and told the guest
                    seen.detail = ex.detail
                elif ex.outcome is Outcome.UNSUPPORTED:
                    seen.detail = ex.detail
                    return self._cannot_be_told(domain, disk, size)
                else:
                    raise
        return self._note(domain, disk, size)

    def _cannot_be_told(self, domain: Domain, disk: Disk, size: int) -> Reason:
        known = self.tools.told.judge_disk(domain, disk, size - self.header)
        return Reason.SIZE_REACHED if known is Told.YES else self._at_restart(domain, size)

    def _note(self, domain: Domain, disk: Disk, size: int) -> Reason:
        """Remember that the hypervisor was asked for this size, which told the guest where it can be told."""
        if not disk.can_be_told:
            return self._at_restart(domain, size)
        volume_id = self.order.key.volume_id
        self.tools.told.note(domain.server_id, domain.run, volume_id, size - self.header, Told.YES)
        return Reason.SIZE_REACHED

    def _at_restart(self, domain: Domain, size: int) -> Reason:
        volume_id = self.order.key.volume_id
        self.tools.told.note(domain.server_id, domain.run, volume_id, size - self.header, Told.AT_RESTART)
        return Reason.SEEN_AT_RESTART

    @staticmethod
    def _check_can_grow(disk: Disk) -> None:
        """Raise StepFailedError for a disk that no hypervisor resizes, before anything is touched."""
        if disk.cdrom:
            raise StepFailedError(Outcome.UNSUPPORTED, Reason.CDROM, f"{disk.target}: {disk.words}")
        if disk.read_only:
            raise StepFailedError(Outcome.UNSUPPORTED, Reason.READ_ONLY, f"{disk.target}: {disk.words}")

    def _find(self) -> tuple[Domain, Disk]:
        with self._step("find") as seen:
            domain, disk = find_disk(self.tools.hypervisor, self.order.key)
            seen.detail = f"{domain.state} {disk.target} {disk.kind} {disk.driver_format}"
            self.domain = domain
            if self.tools.guard is not None:
                self.tools.guard.check(domain, disk, self.order.attachment_id)
            return domain, disk

    def _behind_its_header(self, disk: Disk) -> Disk:
        """Return the volume as its storage has it: QEMU puts a LUKS header in front and changes nothing else."""
        with self._step("header") as seen:
            self.header = seen.size = self._hidden_bytes(disk)
        return replace(disk, encrypted=False)

    def _behind_its_map(self, disk: Disk, mapped: CryptMap) -> None:
        """Read the header that dm-crypt leaves out. An unreadable one matters only where the map can be resized."""
        self.mapped = mapped
        with self._step("header") as seen:
            try:
                self.header = seen.size = self._hidden_bytes(disk)
            except StepFailedError as ex:
                if self._why_not(mapped) is None:
                    raise
                seen.detail = ex.detail

    def _hidden_bytes(self, disk: Disk) -> int:
        headers, images = self.tools.headers, self.tools.images
        return headers.hidden_bytes(disk, images) if headers is not None else crypt.hidden_bytes(disk, images)

    def _why_not(self, mapped: CryptMap) -> str | None:
        return crypt.why_not(mapped, self.order.encryption, opted_in=self.tools.encryptor is not None)

    def _strategy(self, disk: Disk) -> Strategy:
        mapped, encryption, encryptor = self.mapped, self.order.encryption, self.tools.encryptor
        if mapped is None:
            return self._chosen(disk)
        if (why := self._why_not(mapped)) is not None or encryption is None or encryptor is None:
            raise StepFailedError(Outcome.UNSUPPORTED, Reason.NO_STRATEGY, why or "")
        return crypt.CryptStrategy(
            inner=self._chosen(crypt.beneath(disk, mapped)),
            mapped=mapped,
            header=self.header,
            encryption=encryption,
            encryptor=encryptor,
        )

    def _chosen(self, disk: Disk) -> Strategy:
        device = disk.device
        if device is not disk and (device.encrypted or crypt.map_of(device) is not None):
            raise StepFailedError(
                Outcome.BUSY, Reason.OVERLAY_ACTIVE, f"{disk.source} is an overlay on the encrypted {device.source}"
            )
        strategy = choose(self.tools.strategies, device, self.order.connection)
        if strategy is None:
            what = device.words
            if (kind := volume_type(self.order.connection)) is not None:
                what += f", volume type {kind}"
            raise StepFailedError(Outcome.UNSUPPORTED, Reason.NO_STRATEGY, what)
        return strategy if device is disk else OverlayStrategy(strategy)

    def _off(self, disk: Disk) -> tuple[Outcome, Reason]:
        """Do the host's side: the guest reads the size at its next start.

        A file is the exception: QEMU would grow it, and QEMU is off. Saying `guest_off` would close the extend with
        an image that is too small for good, so the order stays open and is done once the guest runs.
        """
        strategy = self._strategy(disk)
        if disk.kind is SourceKind.BLOCK and disk.source is not None and not Path(disk.source).exists():
            return Outcome.GUEST_OFF, Reason.DOMAIN_OFF  # not connected; connecting it will show its size
        size = strategy.size(disk)
        if disk.kind is SourceKind.NETWORK:
            self._learn_device(disk)
        if size is None or disk.bottom is not None:
            self.before = self.after = self._capacity("before", disk)
            if self.after < self.order.target:
                raise StepFailedError(
                    Outcome.DEVICE_STALE,
                    Reason.DOMAIN_OFF,
                    "only QEMU can grow the file, and only while the guest runs",
                )
        elif size < self.order.target:
            self._refresh(strategy, disk)
        return Outcome.GUEST_OFF, Reason.DOMAIN_OFF

    def _capacity(self, name: str, disk: Disk) -> Bytes:
        with self._step(name) as seen:
            now = self.tools.hypervisor.capacity(self.order.key.server_id, disk.target)
            raw_device = disk.kind is SourceKind.BLOCK and disk.driver_format == "raw"
            self.source_larger = raw_device and now.physical > now.capacity + (self.header if disk.luks else 0)
            seen.size = now.capacity + self.header
            return Bytes(seen.size)

    def _refresh(self, strategy: Strategy, disk: Disk) -> None:
        """Return once the host has the size, or has no device to have it; raises StepFailedError."""
        with self._step("refresh") as seen:
            seen.detail = strategy.name
            seen.size = size = self._fresh_size(strategy, disk)
            self._check_identity(disk)
            self._learn_device(disk)
        if size is not None and size < self.order.target:
            with self._step("wait") as seen:
                seen.size = size
                self._wait_for_device(strategy, disk, seen)
                self._learn_device(disk)

    def _learn_device(self, disk: Disk) -> None:
        """Remember the device once its refresh has shown it to be the connection's; refuse another one."""
        if self.tools.guard is not None and self.domain is not None:
            self.tools.guard.learn(self.domain, disk, self.order.attachment_id, self._image_names(disk.device))

    def _image_names(self, disk: Disk) -> frozenset[str]:
        images = self.tools.images
        return images.names(disk) if disk.kind is SourceKind.NETWORK and images is not None else frozenset()

    def _check_identity(self, disk: Disk) -> None:
        """Check that the device is the connection's.

        Of a dm-crypt map the connection may name either device: the map's name is what os-brick gave to Nova.
        """
        if self.mapped is not None:
            with suppress(StepFailedError):
                check_identity(crypt.beneath(disk, self.mapped), self.order.connection)
                return
        check_identity(disk.device, self.order.connection)

    def _fresh_size(self, strategy: Strategy, disk: Disk) -> int | None:
        refreshed = self.tools.refreshed
        if refreshed.covers(self.order, disk, self.tools.clock()):
            size = strategy.size(disk)
            if size is None or size >= self.order.target:
                return size
        size = self._refresh_now(strategy, disk)
        refreshed.note(self.order, disk, self.tools.clock())
        return size

    def _refresh_now(self, strategy: Strategy, disk: Disk) -> int | None:
        """Refresh the device. A refresh that failed may have shown another volume, which decides."""
        try:
            return strategy.refresh(disk, self.order.connection)
        except StepFailedError as failed:
            if self.tools.guard is not None and self.domain is not None and failed.outcome is not Outcome.REFUSED:
                try:
                    self.tools.guard.check(self.domain, disk, self.order.attachment_id)
                except StepFailedError as ex:
                    if ex.outcome is Outcome.REFUSED:
                        raise ex from failed
            raise

    def _wait_for_device(self, strategy: Strategy, disk: Disk, seen: _StepNote) -> None:
        """Wait for the device to show the size, counted from now: the refresh has taken its own time.

        A device of the host that stays smaller by a fixed overhead is all there is: the guest gets that.
        """
        tools = self.tools
        for rescan in looks(tools.patience, sleep=tools.sleep, clock=tools.clock):
            size = strategy.size(disk)
            if rescan and size is not None and size < self.order.target:
                size = self._refresh_now(strategy, disk)
            seen.size = size
            if size is None or size >= self.order.target:
                return
        on_device = disk.device.kind is SourceKind.BLOCK  # an image has no metadata of its own: it is late
        if on_device and seen.size is not None and is_fixed_overhead(seen.size, self.order.target, self.before):
            self.overhead = self.order.target - seen.size
            seen.detail = f"fixed overhead of {self.overhead} bytes"
            return
        raise StepFailedError(
            Outcome.DEVICE_STALE, Reason.DEVICE_SMALLER, f"the device has {seen.size} of {self.order.target} bytes"
        )

    def _resize(self, disk: Disk) -> bool:
        """Resize the disk. Return whether the hypervisor was asked: not where nova-compute was quicker."""
        with self._step("resize") as seen:
            try:
                resized = grow(
                    self.tools.hypervisor,
                    self.order.key.server_id,
                    disk,
                    self.order.target - self.overhead,
                    header=self.header,
                    image_size=self._image_size(disk),
                )
            except StepFailedError as ex:
                if ex.reason is not Reason.WOULD_SHRINK:
                    raise
                seen.detail = ex.detail  # the disk grew since `before`; `verify` will see that
                return False
            seen.size = resized.before
            return resized.asked

    def _image_size(self, disk: Disk) -> Callable[[], int] | None:
        images = self.tools.images
        return images.reader(disk) if disk.kind is SourceKind.NETWORK and images is not None else None

    @contextmanager
    def _step(self, name: str) -> Iterator[_StepNote]:
        seen, began, ok = _StepNote(), self.tools.clock(), False
        try:
            yield seen
            ok = True
        except StepFailedError as ex:
            seen.detail = f"{ex.reason}{f': {ex.detail}' if ex.detail else ''}"
            raise
        finally:
            seconds = self.tools.clock() - began
            self.steps.append(StepReport(name=name, ok=ok, seconds=seconds, detail=seen.detail, size=seen.size))
