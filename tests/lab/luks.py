# SPDX-License-Identifier: Apache-2.0
"""LUKS1 volumes as Cinder makes them: the header inside the volume's size, the passphrase in a libvirt secret."""

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

PASSPHRASE: Final = b"a volume's passphrase"

_TRIES: Final = (
    10  # "Unable to get accurate CPU usage": where the kernel counts it in ticks, QEMU may see none pass
)


class Volume(Protocol):
    """A volume of tests.lab.disks or tests.lab.ceph."""

    size: int

    @property
    def volume_id(self) -> str:
        """Cinder's id."""

    def xml(self, target: str) -> str:
        """The <disk> element."""

    def grow(self, size: int) -> None:
        """What the backend does on an extend."""

    def close(self) -> None:
        """Give back what the host holds."""


@dataclass(slots=True)
class Luks:
    """A volume with a LUKS1 header in front. `secret_id`: the libvirt secret with PASSPHRASE."""

    volume: Volume
    secret_id: str
    header: int

    @property
    def size(self) -> int:
        """What a guest sees at first."""
        return self.volume.size - self.header

    @property
    def volume_id(self) -> str:
        """Cinder's id."""
        return self.volume.volume_id

    def xml(self, target: str) -> str:
        """As Nova writes it: <encryption> in the disk."""
        secret = f"<secret type='passphrase' uuid='{self.secret_id}'/>"
        return self.volume.xml(target).replace("</disk>", f"<encryption format='luks'>{secret}</encryption></disk>")

    def grow(self, size: int) -> None:
        """The volume, header included."""
        self.volume.grow(size)

    def close(self) -> None:
        """Give back what the host holds."""
        self.volume.close()


def make_luks_image(path: Path, size: str, *, inside: str = "luks") -> None:
    """Make an image with LUKS1 that opens with PASSPHRASE; `inside`: luks, or qcow2.

    Tried a few times, see _TRIES.
    """
    secret = ["--object", f"secret,id=s,data={PASSPHRASE.decode()}"]
    options = "key-secret=s,iter-time=10"
    if inside == "qcow2":
        options = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"
    create = ["qemu-img", "create", "-q", *secret, "-f", inside, "-o", options, str(path), size]
    for _ in range(_TRIES - 1):
        if subprocess.run(create, check=False, capture_output=True).returncode == 0:
            return
    subprocess.run(create, check=True)


def luks_header() -> bytes:
    """A fresh LUKS1 header, up to its payload, with PASSPHRASE."""
    with tempfile.TemporaryDirectory() as directory:
        made = Path(directory) / "luks"
        make_luks_image(made, "1M")
        info = subprocess.run(
            ["qemu-img", "info", "--output=json", str(made)], check=True, capture_output=True, text=True
        )
        offset: int = json.loads(info.stdout)["format-specific"]["data"]["payload-offset"]
        return made.read_bytes()[:offset].ljust(offset, b"\0")
