# SPDX-License-Identifier: Apache-2.0
"""The running guest: QEMU with its disks, its monitor and agent behind sockets. A power cut is a killed QEMU."""

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hostagent.drivers.qmp.agent import ask
from hostagent.drivers.qmp.wire import JsonLines, QmpDeadline
from hostagent.guest.answers import Printed
from hostagent.guest.calls import AgentCalls
from tests.lab.lastmile.image import GuestImage

_CMDLINE: Final = (
    "root=/dev/vda1 rw console=ttyS0 quiet panic=-1 mitigations=off nokaslr random.trust_cpu=on "
    "systemd.show_status=0"
)
_BOOT: Final = 900.0  # seconds, on a busy machine
_CALL: Final = 120.0
_SCRIPT: Final = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LabDisk:
    """A disk of the guest; `bus`: virtio or scsi."""

    name: str
    volume_id: str
    bus: str
    image: Path

    @property
    def by_id(self) -> str:
        """The path of its serial in the guest."""
        prefix = "virtio-" if self.bus == "virtio" else "scsi-0QEMU_QEMU_HARDDISK_"
        return f"/dev/disk/by-id/{prefix}{self.volume_id[:20] if self.bus == 'virtio' else self.volume_id}"


class RunningGuest:
    """One boot of the guest."""

    def __init__(self, image: GuestImage, directory: Path, disks: Sequence[LabDisk]) -> None:
        self._directory = directory
        self._socket, self._monitor = directory / "agent", directory / "monitor"
        command = [
            "setpriv", "--pdeathsig", "KILL",
            "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max,-la57",
            "-smp", "1", "-m", "768", "-nodefaults", "-display", "none", "-no-reboot",
            "-kernel", str(image.kernel), "-initrd", str(image.initramfs), "-append", _CMDLINE,
            "-device", "virtio-serial-pci", "-device", "virtio-scsi-pci,id=scsi",
            "-chardev", f"socket,path={self._socket},server=on,wait=off,id=agent",
            "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
            "-object", "rng-random,id=random,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=random",
            "-serial", f"file:{directory / 'console'}", "-qmp", f"unix:{self._monitor},server=on,wait=off",
        ]  # fmt: skip
        for number, disk in enumerate(disks):
            device = "virtio-blk-pci" if disk.bus == "virtio" else "scsi-hd,bus=scsi.0"
            serial = disk.volume_id[:20] if disk.bus == "virtio" else disk.volume_id
            more = "" if disk.bus == "virtio" else f",device_id={serial}"
            command += ["-blockdev", f"driver=file,node-name=file{number},filename={disk.image},cache.direct=off"]
            command += ["-blockdev", f"driver=raw,node-name={disk.name},file=file{number}"]
            command += ["-device", f"{device},drive={disk.name},serial={serial}{more}"]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self.calls = self.new_calls()

    def new_calls(self) -> AgentCalls:
        """Return calls of the agent with a budget of their own."""
        return AgentCalls(self, "guest", limit=_CALL, sleep=_sleep, budget=7200.0)

    def agent(self, _server_id: str, command: Mapping[str, Any], limit: float) -> Any:
        """Ask the guest's agent, as the driver of plain QEMU does."""
        return ask(str(self._socket), command, limit)

    def wait_boot(self) -> None:
        """Wait for the agent. RuntimeError with the console's end where QEMU ended, or it never came."""
        deadline = time.monotonic() + _BOOT
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                ask(str(self._socket), {"execute": "guest-ping"}, 5)
            except Exception:  # noqa: BLE001 - whatever it is, it boots
                time.sleep(0.5)
            else:
                return
        console = (self._directory / "console").read_text(errors="replace")
        raise RuntimeError(f"the guest's agent does not come; its console:\n{console[-4000:]}")

    def run(self, script: str) -> Printed:
        """Run a script of the lab in the guest."""
        return self.calls.run(("sh", "-c", script), _SCRIPT)

    def must(self, script: str) -> str:
        """Run a script that has to succeed; its output."""
        ended = self.run(f"exec 2>&1; {script}")
        if ended.code != 0:
            raise RuntimeError(f"{script[:200]}: {ended.code}: {ended.out[-1500:]}")
        return ended.out

    def resize(self, disk: LabDisk, size: int) -> None:
        """Give a disk a size, and tell the guest."""
        deadline = QmpDeadline(_CALL)
        wire = JsonLines(str(self._monitor), deadline, line_max=1 << 20)
        try:
            wire.line(deadline)
            for command in (
                {"execute": "qmp_capabilities"},
                {"execute": "block_resize", "arguments": {"node-name": disk.name, "size": size}},
            ):
                wire.send(command, deadline)
                while "return" not in (answer := wire.message(deadline)):
                    if "error" in answer:
                        raise RuntimeError(f"{command}: {answer['error']}")
        finally:
            wire.close()

    def cut_power(self) -> None:
        """Kill QEMU now."""
        self._process.kill()
        self._process.wait()


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False
