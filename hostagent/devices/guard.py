# SPDX-License-Identifier: Apache-2.0
"""The guard between a disk and its device: it refuses a device that shows another volume than before."""

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from bridge.core.extend import ExtendKey
from bridge.core.inventory import GuestState
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.devices import paths, sysfs
from hostagent.domain import Disk, Domain, SourceKind
from hostagent.errors import StepFailedError
from hostagent.identity import AttachEvidence, DeviceMemory, IdentityVerdict
from hostagent.storage_reads import StorageReads, StorageSilentError

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_UDEV: Final = 0.5  # seconds
_LEAVES_WITHIN: Final = 10  # looks, _UDEV apart, at a device that has lost its name
_NO_DEVICE: Final = (frozenset[str](), AttachEvidence())
_REMEDY: Final = "correct the storage, then detach the volume and attach it again"


class RememberedDevices:
    """The guard of ports.DeviceGuard over a DeviceMemory; for several threads."""

    def __init__(
        self,
        memory: DeviceMemory,
        reads: StorageReads,
        root: Path = sysfs.SYS,
        *,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._memory = memory
        self._sleep = sleep
        self._reads = reads
        self._root = root
        self._boot = sysfs.text(_BOOT_ID)

    def check(self, domain: Domain, disk: Disk, attachment_id: str | None = None) -> None:
        """Refuse a disk that is known to be another volume."""
        if (key := _key(domain, disk)) is None:
            return
        if (names := self._settled_names(key, domain, disk)) is None:
            self._check_gone(key, domain, disk)
            return
        verdict = self._memory.judge(key, names, self._evidence(domain, disk, attachment_id))
        self._raise(verdict, key, disk, names)

    def learn(
        self, domain: Domain, disk: Disk, attachment_id: str | None = None, image: frozenset[str] = frozenset()
    ) -> None:
        """Check, and remember a device that was not known. `image`: the names of an image, which is no device."""
        if (key := _key(domain, disk)) is None or (names := image or self._names(disk)) is None:
            return
        verdict = self._memory.learn(key, names, self._evidence(domain, disk, attachment_id))
        self._raise(verdict, key, disk, names)

    def observe(self, domain: Domain, detached: Iterable[str] = ()) -> Mapping[str, IdentityVerdict]:
        """Learn from a look at a guest; `detached`: aliases of disks that left since the last look.

        Only a guest that runs shows which devices its disks are: those of one that is off may be connected to
        nothing, or to something else.
        """
        active = domain.state is GuestState.ACTIVE
        disks = {
            disk.volume_id: (self._names_or_none(disk), self._evidence(domain, disk, None))
            if active and disk.device.kind is SourceKind.BLOCK
            else _NO_DEVICE
            for disk in domain.disks
            if disk.volume_id is not None
        }
        gone = set(detached)
        removed = [disk.volume_id for disk in domain.disks if disk.volume_id is not None and disk.alias in gone]
        return self._memory.observe_guest(domain.server_id, disks, removed)

    def write_observed(self) -> None:
        """Write what the looks at guests have changed."""
        self._memory.write_observed()

    def observe_host(self, server_ids: frozenset[str]) -> None:
        """Store which guests are on this host."""
        self._memory.observe_host(server_ids)

    def _settled_names(self, key: ExtendKey, domain: Domain, disk: Disk) -> frozenset[str] | None:
        """Return the names of a device, after some more looks at one that has lost the names that are known.

        The kernel takes an NVMe namespace away whose names have changed: first its names are gone, then the device.
        """
        names = self._names(disk)
        if not self._memory.known_names(key) or domain.state is not GuestState.ACTIVE:
            return names
        for _ in range(_LEAVES_WITHIN):
            if names is None or names:
                break
            self._sleep(_UDEV)
            names = self._names(disk)
        return names

    def _check_gone(self, key: ExtendKey, domain: Domain, disk: Disk) -> None:
        """Raise StepFailedError where a running guest has a device that its host no longer has.

        The kernel takes an NVMe namespace away whose names have changed. A link below /dev is looked at once more,
        because udev may be about to write it.
        """
        known = self._memory.known_names(key)
        if not known or domain.state is not GuestState.ACTIVE or disk.device.kind is not SourceKind.BLOCK:
            return
        self._sleep(_UDEV)
        if self._names(disk) is None:
            was = ", ".join(sorted(known))
            detail = f"{disk.device.source} does not exist on this host any more; the volume was {was}: {_REMEDY}"
            raise StepFailedError(Outcome.REFUSED, Reason.WRONG_DEVICE, detail)

    def _names_or_none(self, disk: Disk) -> frozenset[str]:
        """Return the names; none where the device does not answer, because one disk must not stop the inventory."""
        try:
            return self._names(disk) or frozenset()
        except StepFailedError:
            return frozenset()

    def _names(self, disk: Disk) -> frozenset[str] | None:
        """Return the device's worldwide names; None for another kind of disk, and where the host has no device."""
        source = disk.device.source
        if disk.device.kind is not SourceKind.BLOCK or source is None:
            return None
        try:
            return self._reads.read(source, lambda: self._read(source))
        except StorageSilentError as ex:
            raise StepFailedError(Outcome.DEVICE_STALE, Reason.STORAGE_SILENT, str(ex)) from ex

    def _read(self, source: str) -> frozenset[str] | None:
        number = sysfs.device_number(source)
        return sysfs.worldwide_names(number, self._root) if number is not None else None

    def _evidence(self, domain: Domain, disk: Disk, attachment_id: str | None) -> AttachEvidence:
        run = f"{self._boot}/{domain.run}" if domain.run is not None and self._boot else None
        number = sysfs.device_number(disk.device.source or "") if disk.device.kind is SourceKind.BLOCK else None
        places = paths.places(number, self._root) if number is not None else frozenset()
        return AttachEvidence(run=run, node=disk.device.node, attachment_id=attachment_id, places=places)

    def _raise(self, verdict: IdentityVerdict, key: ExtendKey, disk: Disk, names: frozenset[str]) -> None:
        if verdict in {IdentityVerdict.SAME, IdentityVerdict.FIRST}:
            return
        was = ", ".join(sorted(self._memory.known_names(key)))
        if verdict is IdentityVerdict.SILENT:
            self._check_places(key, disk, was)
            raise StepFailedError(
                Outcome.DEVICE_STALE,
                Reason.WRONG_DEVICE,
                f"{disk.device.source} has no worldwide name now; the volume was {was}",
            )
        now = ", ".join(sorted(names))
        raise StepFailedError(
            Outcome.REFUSED, Reason.WRONG_DEVICE, f"{disk.device.source} is {now}; the volume was {was}: {_REMEDY}"
        )

    def _check_places(self, key: ExtendKey, disk: Disk, was: str) -> None:
        """Raise StepFailedError where the storage shows another volume in the place of a device without paths.

        multipathd takes paths out of a map whose worldwide name has changed, so that the map itself tells nothing.
        """
        source, known = disk.device.source or "", self._memory.known_names(key)
        wanted = self._memory.known_places(key)
        try:
            found = self._reads.read(source, lambda: paths.shown_at(wanted, self._root))
        except StorageSilentError:
            return
        if found and not any(names & known for names in found.values()):
            now = "; ".join(f"{where} is {', '.join(sorted(names))}" for where, names in found.items())
            detail = f"{source} has no path: {now}; the volume was {was}: {_REMEDY}"
            raise StepFailedError(Outcome.REFUSED, Reason.WRONG_DEVICE, detail)


def _key(domain: Domain, disk: Disk) -> ExtendKey | None:
    return ExtendKey(domain.server_id, disk.volume_id) if disk.volume_id is not None else None
