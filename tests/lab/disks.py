# SPDX-License-Identifier: Apache-2.0
"""Disks for guests of the lab, grown as a Cinder backend does it: the volume becomes larger, nobody tells QEMU."""

import subprocess
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from xml.sax.saxutils import quoteattr


class Disk(Protocol):
    """One volume as a guest gets it."""

    @property
    def volume_id(self) -> str:
        """Cinder's id, which is the disk's serial."""

    def xml(self, target: str) -> str:
        """The <disk> element."""

    def grow(self, size: int) -> None:
        """What the backend does on an extend, to `size` bytes."""

    def close(self) -> None:
        """Give back what the host holds for it."""


def _new_id() -> str:
    return str(uuid.uuid4())


def disk_xml(
    *, kind: str, source: str, driver: str, target: str, serial: str | None, alias: str | None = None
) -> str:
    """A <disk> on virtio; `kind` is block or file."""
    attribute = "dev" if kind == "block" else "file"
    return (
        f"<disk type='{kind}' device='disk'><driver name='qemu' type='{driver}' cache='none'/>"
        f"<source {attribute}={quoteattr(source)}/><target dev='{target}' bus='virtio'/>"
        + (f"<serial>{serial}</serial>" if serial else "")
        + (f"<alias name='{alias}'/>" if alias else "")
        + "</disk>"
    )


def _quiet(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@dataclass(slots=True)
class RawFile:
    """A sparse raw file, as an NFS volume is."""

    path: Path
    size: int
    volume_id: str = field(default_factory=_new_id)

    def __post_init__(self) -> None:
        with self.path.open("ab") as file:
            file.truncate(self.size)

    def xml(self, target: str) -> str:
        """The <disk> element."""
        return disk_xml(kind="file", source=str(self.path), driver="raw", target=target, serial=self.volume_id)

    def grow(self, size: int) -> None:
        """Nothing: an attached file is grown by QEMU, Cinder leaves it alone."""

    def close(self) -> None:
        """Nothing is held."""


@dataclass(slots=True)
class Qcow2File:
    """A qcow2 file."""

    path: Path
    size: int
    volume_id: str = field(default_factory=_new_id)

    def __post_init__(self) -> None:
        _quiet("qemu-img", "create", "-q", "-f", "qcow2", str(self.path), str(self.size))

    def xml(self, target: str) -> str:
        """The <disk> element."""
        return disk_xml(kind="file", source=str(self.path), driver="qcow2", target=target, serial=self.volume_id)

    def grow(self, size: int) -> None:
        """Nothing: an attached file is grown by QEMU, Cinder leaves it alone."""

    def close(self) -> None:
        """Nothing is held."""


@dataclass(slots=True)
class LoopDevice:
    """A block device of the host over a sparse file. Needs root."""

    path: Path
    size: int
    volume_id: str = field(default_factory=_new_id)
    device: str = field(init=False)

    def __post_init__(self) -> None:
        with self.path.open("ab") as file:
            file.truncate(self.size)
        self.device = _quiet("losetup", "--find", "--show", str(self.path))

    def xml(self, target: str) -> str:
        """The <disk> element."""
        return disk_xml(kind="block", source=self.device, driver="raw", target=target, serial=self.volume_id)

    def grow(self, size: int) -> None:
        """The device becomes larger under the guest, as a SCSI disk does once it was rescanned."""
        with self.path.open("r+b") as file:
            file.truncate(size)
        _quiet("losetup", "--set-capacity", self.device)

    def close(self) -> None:
        """Detach the device; the file stays."""
        subprocess.run(["losetup", "--detach", self.device], check=False, capture_output=True)
