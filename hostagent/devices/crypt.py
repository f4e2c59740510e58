# SPDX-License-Identifier: Apache-2.0
"""A disk that dm-crypt on this host decrypts: the device beneath is refreshed as any other, and the map follows.

Resizing the map of a LUKS2 volume takes the volume's key, which a host asks for only where its operator opted in.
Sizes here are the volume's, as everywhere: what the map shows, and the header before it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from bridge.core.encryption import Encryption
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.devices import sysfs
from hostagent.devices.base import Strategy
from hostagent.devices.checks import block_device_size, check_paths_up
from hostagent.devices.luks import header_of_map
from hostagent.devices.luks import hidden_bytes as hidden_by_qemu
from hostagent.devices.sysfs import CryptMap
from hostagent.domain import Disk, SourceKind
from hostagent.errors import StepFailedError
from hostagent.ports import Encryptor, Images

_FRONT_END: Final = "front-end"
_LUKS_KINDS: Final = frozenset({"LUKS1", "LUKS2"})
_LUKS_PROVIDERS: Final = frozenset(
    {
        "luks",
        "luks2",
        "LuksEncryptor",
        "nova.volume.encryptors.luks.LuksEncryptor",
        "os_brick.encryptors.luks.LuksEncryptor",
    }
)
"""What os-brick resizes maps of (os_brick/encryptors/__init__.py). It would import any other name as a class."""


def map_of(disk: Disk, root: Path = sysfs.SYS) -> CryptMap | None:
    """Return the dm-crypt map that the domain has as this disk, None where its disk is something else."""
    if disk.kind is not SourceKind.BLOCK or disk.source is None or disk.driver_format != "raw" or disk.encrypted:
        return None
    number = sysfs.device_number(disk.source)
    return sysfs.crypt_map(number, root) if number is not None else None


def hidden_bytes(disk: Disk, images: Images | None, root: Path = sysfs.SYS) -> int:
    """Return the bytes that the guest does not see, whichever layer decrypts. Raises StepFailedError.

    A path that is down is not read: that would take as long as its transport waits for it to come back.
    """
    mapped = map_of(disk, root)
    if mapped is None:
        return hidden_by_qemu(disk, images)
    check_paths_up(beneath(disk, mapped), root)
    return header_of_map(mapped.beneath, mapped.kind)


def beneath(disk: Disk, mapped: CryptMap) -> Disk:
    """Return the disk as if the domain had the encrypted device."""
    return replace(disk, source=mapped.beneath)


def why_not(mapped: CryptMap, encryption: Encryption | None, *, opted_in: bool) -> str | None:
    """Return the reason why this map cannot be resized, with a remedy; None where it can. Pure."""
    if not opted_in:
        return (
            "dm-crypt: the map cannot be resized without the volume's key; to let this host read it from the key "
            "manager, set [key_manager] backend in its configuration"
        )
    if mapped.kind not in _LUKS_KINDS:
        return f"dm-crypt of kind {mapped.kind}: os-brick resizes LUKS only"
    if encryption is None:
        return (
            "dm-crypt: the order does not contain the key's id; may the engine's user GET /volumes/{id}/encryption "
            "of Cinder, and is the engine as new as this agent?"
        )
    if encryption.control_location.lower() != _FRONT_END or encryption.provider not in _LUKS_PROVIDERS:
        return (
            f"dm-crypt: in Cinder the volume has provider {encryption.provider} at the "
            f"{encryption.control_location}, which os-brick cannot resize here"
        )
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class CryptStrategy:
    """The strategy of one order for a dm-crypt map. `inner` knows the device beneath; `header` in bytes."""

    inner: Strategy
    mapped: CryptMap
    header: int
    encryption: Encryption
    encryptor: Encryptor
    sys: Path = sysfs.SYS

    @property
    def name(self) -> str:
        """The inner strategy's name and the map."""
        return f"{self.inner.name}, dm-crypt {self.encryption.provider}"

    def takes(self, disk: Disk, connection: Mapping[str, Any] | None) -> bool:
        """Return the answer of the inner strategy."""
        return self.inner.takes(beneath(disk, self.mapped), connection)

    def refresh(self, disk: Disk, connection: Mapping[str, Any] | None) -> int:
        """Refresh the device, then its map. A key is read only where the map is smaller; a map only grows."""
        self.inner.refresh(beneath(disk, self.mapped), connection)
        device, has = self._device(disk), self._has(disk)
        if device < has:
            raise StepFailedError(
                Outcome.REFUSED,
                Reason.WOULD_SHRINK,
                f"{self.mapped.beneath} has {device} bytes, but the dm-crypt map on it needs {has}",
            )
        if device > has:
            self.encryptor.grow_map(self.mapped.name, self.encryption)
        return self.size(disk)

    def size(self, disk: Disk) -> int:
        """Return the smaller of the sizes of the device and the map."""
        return min(self._device(disk), self._has(disk))

    def _device(self, disk: Disk) -> int:
        return self.inner.size(beneath(disk, self.mapped)) or 0

    def _has(self, disk: Disk) -> int:
        return block_device_size(disk.source or "", self.sys) + self.header
