# SPDX-License-Identifier: Apache-2.0
"""Guests of plain QEMU, as an operator without libvirt starts them: a QMP socket for the agent, one for tests."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.lab.disks import Disk, LoopDevice, Qcow2File
from tests.lab.guest import Guest, build_guest, new_guest
from tests.lab.waiting import LONGEST, until

QEMU = "qemu-system-x86_64"


def have_qemu() -> bool:
    """Whether QEMU and a compiler for the guest are there."""
    return shutil.which(QEMU) is not None and shutil.which("gcc") is not None


class PlainQemu:
    """One guest's QEMU. `name`: of its sockets NAME.qmp and NAME.qga; `uuid`: whether QEMU is told the guest's."""

    def __init__(
        self,
        directory: Path,
        disks: Sequence[Disk],
        *,
        name: str | None = None,
        server_id: str | None = None,
        uuid: bool = True,
        bus: str = "virtio",
        agent: bool = False,
        more: Sequence[str] = (),
    ) -> None:
        self.guest: Guest = new_guest(disks, directory, server_id=server_id, bus=bus)
        self.server_id = self.guest.server_id
        self._directory = directory
        self._name = name or self.server_id
        self._uuid, self._agent, self._more = uuid, agent, tuple(more)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        """The socket that the agent is given."""
        return self._directory / f"{self._name}.qmp"

    @property
    def agent_socket(self) -> Path:
        """The socket of the guest's agent."""
        return self._directory / f"{self._name}.qga"

    @property
    def own_socket(self) -> Path:
        """The socket of the test's own."""
        return self._directory / f"{self._name}.test"

    def start(self) -> Self:
        """Start QEMU and wait until the guest has printed the sizes of its disks."""
        self.launch()
        self.guest.wait_ready()
        return self

    def launch(self) -> None:
        """Start QEMU and wait for its sockets."""
        for path in (self.socket, self.own_socket, self.agent_socket):
            path.unlink(missing_ok=True)
        with (self._directory / f"{self._name}.log").open("ab") as log:
            self.process = subprocess.Popen(self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(lambda: self.own_socket.exists() or self._ended(), "QEMU's sockets", seconds=LONGEST)
        if self._ended():
            raise RuntimeError((self._directory / f"{self._name}.log").read_text()[-2000:])

    def execute(self, command: str, **arguments: Any) -> Any:
        """Ask QEMU on the test's own monitor; raises RuntimeError for an error."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(LONGEST)
            connection.connect(str(self.own_socket))
            lines = connection.makefile("rw")
            lines.readline()
            answer: Mapping[str, Any] = {}
            for execute, given in (("qmp_capabilities", {}), (command, arguments)):
                lines.write(json.dumps({"execute": execute, "arguments": given, "id": execute}) + "\n")
                lines.flush()
                while answer.get("id") != execute:
                    answer = json.loads(lines.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"]["desc"])
        return answer["return"]

    def size(self, number: int = 0) -> int:
        """Return the capacity of a disk as QEMU has it."""
        block = next(b for b in self.execute("query-block") if b["inserted"]["node-name"] == f"node{number}")
        return int(block["inserted"]["image"]["virtual-size"])

    def write_mark(self, number: int, pattern: int, start: int, length: int) -> None:
        """Write through QEMU, as the guest would."""
        for command in (f"write -P {pattern} {start} {length}", "flush"):
            line = f'qemu-io -d /machine/peripheral/disk{number}/virtio-backend "{command}"'
            self.execute("human-monitor-command", **{"command-line": line})

    def signal(self, number: int) -> None:
        """Send QEMU a signal."""
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, number)

    def stop(self) -> None:
        """Kill QEMU, also one that is frozen."""
        self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait(60)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def _command(self) -> list[str]:
        words = [
            QEMU, "-machine", "pc", "-accel", "tcg", "-m", "16", "-display", "none", "-nodefaults",
            "-name", self._name, "-kernel", str(build_guest()), "-append", "interrupt",
            "-chardev", f"file,id=console,path={self.guest.console},append=on", "-serial", "chardev:console",
            *self._monitor("agent", self.socket), *self._monitor("test", self.own_socket),
        ]  # fmt: skip
        if self._uuid:
            words += ["-uuid", self.server_id]
        if self.guest.bus == "scsi":
            words += ["-device", "virtio-scsi-pci,id=scsi0"]
        if self._agent:
            words += [
                "-device", "virtio-serial-pci", "-chardev",
                f"socket,id=qga,path={self.agent_socket},server=on,wait=off",
                "-device", "virtserialport,chardev=qga,name=org.qemu.guest_agent.0",
            ]  # fmt: skip
        for number, disk in enumerate(self.guest.disks):
            words += ["-blockdev", json.dumps(node(disk, number)), "-device", self._device(disk, number)]
        return [*words, *self._more]

    @staticmethod
    def _monitor(name: str, path: Path) -> list[str]:
        return [
            "-chardev", f"socket,id={name},path={path},server=on,wait=off", "-mon", f"chardev={name},mode=control"
        ]  # fmt: skip

    def _device(self, disk: Disk, number: int) -> str:
        kind = {"virtio": "virtio-blk-pci", "scsi": "scsi-hd", "ide": "ide-hd"}[self.guest.bus]
        return f"{kind},id=disk{number},drive=node{number},serial={disk.volume_id},share-rw=on"


def node(disk: Disk, number: int) -> dict[str, Any]:
    """Return the -blockdev of a disk."""
    if isinstance(disk, LoopDevice):
        driver, file = "raw", {"driver": "host_device", "filename": disk.device}
    else:
        driver = "qcow2" if isinstance(disk, Qcow2File) else "raw"
        file = {"driver": "file", "filename": str(disk.path)}  # type: ignore[attr-defined]
    return {"driver": driver, "node-name": f"node{number}", "file": {**file, "locking": "off"}}


def wait_gone(process: subprocess.Popen[bytes], seconds: float = LONGEST) -> None:
    """Wait for a process that was told to end."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
