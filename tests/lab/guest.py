# SPDX-License-Identifier: Apache-2.0
"""The guest of our own: built from tests/guest, started by libvirt, read on its serial console."""

import os
import re
import shlex
import subprocess
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from tests.lab.disks import Disk
from tests.lab.paths import ROOT, lab_cache
from tests.lab.waiting import LONGEST, until

SOURCES = ROOT / "tests" / "guest"
_POLL = 0.02  # the console is a file on any file system: there is nothing to wait on but its content
_SIZE = re.compile(r"^SIZE ([sv]d[a-z]) (\d+)$", re.MULTILINE)
_GCC = shlex.split(
    "gcc -m32 -march=i386 -std=c11 -Wall -Wextra -Werror -Os -ffreestanding -fno-pic -fno-stack-protector "
    "-fno-asynchronous-unwind-tables -fcf-protection=none -nostdlib -static -s -Wl,-m,elf_i386 -Wl,-N "
    "-Wl,-Ttext=0x100000 -Wl,--build-id=none -Wl,--no-warn-rwx-segments"
)


def build_guest() -> Path:
    """The multiboot image, compiled where it is missing or older than its sources; two may build at once."""
    image = lab_cache() / "guest"
    sources = [SOURCES / "start.S", SOURCES / "guest.c", SOURCES / "scsi.h", SOURCES / "agent_port.h"]
    if image.exists() and all(source.stat().st_mtime <= image.stat().st_mtime for source in sources):
        return image
    part = image.with_name(f"guest.{os.getpid()}")
    subprocess.run([*_GCC, "-o", str(part), *map(str, sources[:2])], check=True)
    part.replace(image)
    return image


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A domain to be: its id, its disks in the order vda, vdb ..., and the file its console is written to."""

    disks: Sequence[Disk]
    console: Path
    server_id: str
    name: str
    bus: str = "virtio"
    panics: bool = False
    looks_on_interrupt: bool = True
    hotplug: bool = False
    agent: Path | None = None

    def xml(self) -> str:
        """The domain, as Nova lays one out where it matters to us: <serial> is the volume id.

        Machine "pc" gives virtio disks the legacy window our guest reads; TCG, because a lab has no /dev/kvm. The
        console is appended to: after a migration another QEMU writes on.
        """
        disks = "".join(
            disk.xml(name).replace("bus='virtio'", f"bus='{self.bus}'")
            for name, disk in zip(self.targets(), self.disks, strict=True)
        )
        scsi = "<controller type='scsi' model='virtio-scsi'/>" if self.bus == "scsi" else ""
        panic = "<panic model='isa'/>" if self.panics else ""
        agent = (
            f"<channel type='unix'><source mode='connect' path={quoteattr(str(self.agent))}/>"
            "<target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
            if self.agent is not None
            else ""
        )
        said = {"panic": self.panics, "interrupt": self.looks_on_interrupt, "hotplug": self.hotplug}
        words = [word for word, chosen in said.items() if chosen]
        crash, reboot = ("preserve", "restart") if self.panics else ("destroy", "destroy")
        return f"""<domain type='qemu'>
  <name>{escape(self.name)}</name><uuid>{self.server_id}</uuid>
  <memory unit='MiB'>16</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type><kernel>{escape(str(build_guest()))}</kernel>
    {f"<cmdline>{' '.join(words)}</cmdline>" if words else ""}</os>
  {"<features><acpi/></features>" if self.hotplug else ""}
  <on_poweroff>destroy</on_poweroff><on_reboot>{reboot}</on_reboot><on_crash>{crash}</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>{disks}{scsi}{panic}{agent}
    <controller type='usb' model='none'/><memballoon model='none'/>
    <serial type='file'><source path={quoteattr(str(self.console))} append='on'/><target port='0'/></serial>
  </devices>
</domain>"""

    def targets(self) -> list[str]:
        """The names of its disks: vda ... or, behind a SCSI controller, sda and sdb."""
        return [f"{'s' if self.bus == 'scsi' else 'v'}d{chr(ord('a') + n)}" for n in range(len(self.disks))]

    def text(self) -> str:
        """All it printed so far."""
        return self.console.read_text(errors="replace") if self.console.exists() else ""

    def sizes(self, target: str = "vda") -> list[int]:
        """Every size it printed for one disk, oldest first, in bytes."""
        return [int(size) for name, size in _SIZE.findall(self.text()) if name == target]

    def wait_ready(self, *, seconds: float = LONGEST) -> None:
        """Wait until it has printed a size of each of its disks."""
        until(lambda: all(map(self.sizes, self.targets())), "the guest names its disks", seconds=seconds)

    def wait_size(self, size: int, target: str = "vda", *, seconds: float = LONGEST) -> float:
        """Wait until the last printed size of a disk is `size`; seconds it took. Raises TimeoutError."""
        started = time.monotonic()
        while (seen := self.sizes(target)[-1:]) != [size]:
            if time.monotonic() - started > seconds:
                raise TimeoutError(
                    f"the guest sees {seen or 'no size'} on {target}, not {size}, after {seconds:g} s"
                )
            time.sleep(_POLL)
        return time.monotonic() - started


def new_guest(
    disks: Sequence[Disk],
    directory: Path,
    *,
    server_id: str | None = None,
    bus: str = "virtio",
    panics: bool = False,
    looks_on_interrupt: bool = True,
    hotplug: bool = False,
    agent: Path | None = None,
) -> Guest:
    """A guest with these disks whose console lies in `directory`.

    `bus`: virtio or scsi. `panics`: a second after its start; QEMU then stops it and stays.
    `looks_on_interrupt`: it reads a size only when the device says that it has changed, as Linux does.
    `hotplug`: it takes disks that are attached while it runs.
    `agent`: a socket on which a test plays the guest's agent; it must be listened on before the guest starts.
    """
    server_id = server_id or str(uuid.uuid4())
    return Guest(
        disks=disks,
        console=directory / f"{server_id}.console",
        server_id=server_id,
        name=f"guest-{server_id[:8]}",
        bus=bus,
        panics=panics,
        looks_on_interrupt=looks_on_interrupt,
        hotplug=hotplug,
        agent=agent,
    )
