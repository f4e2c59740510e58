# SPDX-License-Identifier: Apache-2.0
"""A guest with Debian's own kernel. Its drivers look at a disk's size at boot and when they are interrupted."""

import gzip
import hashlib
import os
import re
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from tests.lab.install import GUESTS_PACKAGES
from tests.lab.paths import lab_cache
from tests.lab.storage_vm.kernel import packed, unpacked_kernel

_INIT: Final = Path(__file__).with_name("init.sh")
_MODULES: Final = (
    "virtio_pci", "virtio_blk", "sd_mod", "virtio_scsi", "ahci", "usb_storage", "xhci_pci", "ata_piix", "mptsas",
    "mptspi", "megaraid_sas", "sym53c8xx",
)  # fmt: skip
_TOOLS: Final = ("qemu-system-x86_64", "busybox", "cpio", "depmod", "apt-get", "dpkg-deb")
_POLL: Final = 0.02
_SIZE: Final = re.compile(r"^SIZE (\S+) (\d+)\r?$", re.MULTILINE)
_READY: Final = "GUEST-READY"
_MEMORY_MIB: Final = 160


def lacking() -> str | None:
    """Return what this machine lacks to make such a guest, or None."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    tools = [tool for tool in _TOOLS if shutil.which(tool, path=path) is None]
    return f"{', '.join(tools)} (packages {' '.join(GUESTS_PACKAGES)})" if tools else None


@dataclass(frozen=True, slots=True, kw_only=True)
class StockKernel:
    """What the guest boots: the kernel's image and an initramfs with the drivers of all buses."""

    image: Path
    initramfs: Path


def stock_kernel() -> StockKernel:
    """Return the kernel apt would install now, with its initramfs. Both are kept in the lab's cache."""
    kernel = unpacked_kernel()
    made_from = f"{_INIT.read_text()}{_MODULES}{kernel.modules}"
    name = f"stock-{hashlib.sha256(made_from.encode()).hexdigest()[:16]}.gz"
    initramfs = lab_cache() / "kernel" / name
    if not initramfs.exists():
        with tempfile.TemporaryDirectory(dir=initramfs.parent) as text:
            part = Path(text) / "part"
            root = packed(kernel, Path(text) / "root", init=_INIT, modules=_MODULES)
            part.write_bytes(gzip.compress(root, compresslevel=1))
            part.replace(initramfs)
    return StockKernel(image=kernel.image, initramfs=initramfs)


_CMDLINE: Final = (
    "console=ttyS0 quiet panic=-1 unknown_nmi_panic=1 mitigations=off no_timer_check tsc=reliable"  # NMI: reboots
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StockGuest:
    """A domain to be. Each disk has a size of its own at any time, so a printed size names its disk.

    `devices`: the <disk> elements and their controllers.
    """

    server_id: str
    console: Path
    devices: str
    kernel: StockKernel
    machine: str = "q35"

    @property
    def name(self) -> str:
        """Return the domain's name."""
        return f"stock-{self.server_id[:8]}"

    def xml(self) -> str:
        """Return the domain's XML. The console is appended to, because one QEMU after the other writes it."""
        return f"""<domain type='qemu'>
  <name>{self.name}</name><uuid>{self.server_id}</uuid>
  <memory unit='MiB'>{_MEMORY_MIB}</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='{self.machine}'>hvm</type><kernel>{escape(str(self.kernel.image))}</kernel>
    <initrd>{escape(str(self.kernel.initramfs))}</initrd>
    <cmdline>{_CMDLINE}</cmdline></os>
  <features><acpi/></features>
  <on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>{self.devices}
    <memballoon model='none'/>
    <serial type='file'><source path={quoteattr(str(self.console))} append='on'/><target port='0'/></serial>
  </devices>
</domain>"""

    def text(self) -> str:
        """Return all it printed so far."""
        return self.console.read_text(errors="replace") if self.console.exists() else ""

    def boots(self) -> int:
        """Return how often the guest has booted so far."""
        return self.text().count(_READY)

    def sizes(self) -> dict[str, int]:
        """Return the size the guest sees of each of its disks, by the name it gives them in its present boot."""
        current = self.text().rpartition(_READY)
        text = current[0].rpartition(_READY)[2] + current[1] + current[2]
        return {name: int(size) for name, size in _SIZE.findall(text)}

    def sees(self, size: int) -> bool:
        """Return whether one of its disks has this size now."""
        return size in self.sizes().values()

    def wait_boot(self, boots: int, *, seconds: float = 240.0) -> None:
        """Wait until it has booted so often. Raises TimeoutError with the console's end."""
        deadline = time.monotonic() + seconds
        while self.boots() < boots:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the guest has not booted within {seconds:g} s: {self.text()[-2000:]}")
            time.sleep(_POLL)
