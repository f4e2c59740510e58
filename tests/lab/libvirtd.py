# SPDX-License-Identifier: Apache-2.0
"""A libvirtd of one's own, restarted, killed and hung at will; two of them on one machine are two hosts.

It runs in a mount namespace where the directories libvirt has compiled in are directories of ours, and under a host
name and a host UUID of its own: libvirt refuses to migrate a guest to the host it is on. Needs root. Its guests
outlive it, as on any host.
"""

import os
import shlex
import shutil
import signal
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from tests.lab.paths import lab_cache
from tests.lab.process import ServerProcess

_DAEMON: Final = "/usr/sbin/libvirtd"
_BOUND: Final = ("/run/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt", "/etc/libvirt")
_QEMU_CONF: Final = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
stdio_handler = "file"
namespaces = []
cgroup_controllers = []
"""


def have_libvirtd() -> bool:
    """Whether one can be started here, beside what tests.lab.hypervisor looks for."""
    return os.geteuid() == 0 and Path(_DAEMON).exists() and shutil.which("unshare") is not None


class Libvirtd:
    """One daemon and the QEMUs it started. `directory` must not be too deep: sockets lie in it (108 bytes)."""

    def __init__(self, directory: Path, *, name: str = "host-1") -> None:
        self.name = name
        self.root = directory
        self.uri = f"qemu+unix:///system?socket={directory}/libvirt-sock"
        self._fs = directory / "fs"
        self._daemon = ServerProcess("libvirtd", directory / "out.log")
        for path in _BOUND:
            self._inside(path).mkdir(parents=True, exist_ok=True)
        (self._inside("/etc/libvirt") / "qemu.conf").write_text(_QEMU_CONF)
        (directory / "libvirtd.conf").write_text(
            f'unix_sock_dir = "{directory}"\nauth_unix_rw = "none"\nauth_unix_ro = "none"\n'
            f'unix_sock_rw_perms = "0777"\nlog_level = 3\n'
            f'log_outputs = "3:file:{directory}/libvirtd.log"\nhost_uuid = "{uuid.uuid4()}"\n'
        )
        kept = lab_cache() / "capabilities-0"
        if kept.is_dir():  # probing QEMU costs seconds; libvirt checks itself that what it finds still holds
            shutil.copytree(kept, self._inside("/var/cache/libvirt/qemu/capabilities"), dirs_exist_ok=True)

    def start(self) -> None:
        """Start it and wait for its socket; raises RuntimeError with what it said."""
        address = self.root / "libvirt-sock"
        address.unlink(missing_ok=True)
        binds = " && ".join(
            f"mkdir -p {path} && mount --bind {shlex.quote(str(self._inside(path)))} {path}" for path in _BOUND
        )
        run = f"exec {_DAEMON} -f {self.root}/libvirtd.conf -p {self.root}/libvirtd.pid"
        script = f"{binds} && hostname {shlex.quote(self.name)} && {run}"
        command = ["unshare", "--mount", "--uts", "--propagation", "private", "sh", "-c", script]
        try:
            self._daemon.start(command, answers=lambda: _listens(address))
        except RuntimeError as ex:
            log = self.root / "libvirtd.log"
            said = log.read_text(errors="replace")[-2000:] if log.exists() else ""
            raise RuntimeError(f"{ex}\n{said}") from ex

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it, by SIGKILL where that is wanted; its guests go on."""
        self._daemon.stop(number)

    def hang(self) -> None:
        """Stop the process: it keeps its sockets and answers nobody."""
        self._daemon.send(signal.SIGSTOP)

    def go_on(self) -> None:
        """Undo `hang`."""
        self._daemon.send(signal.SIGCONT)

    def pids(self) -> dict[str, int]:
        """Guest name → pid of its QEMU, for those alive that carry this guest's name in their command line."""
        found = {}
        for file in self._inside("/run/libvirt/qemu").glob("*.pid"):
            with suppress(OSError, ValueError):
                pid = int(file.read_text())
                if f"guest={file.stem}," in Path(f"/proc/{pid}/cmdline").read_text(errors="replace"):
                    found[file.stem] = pid
        return found

    def close(self) -> None:
        """End the daemon and every QEMU it started."""
        self.stop()
        for pid in self.pids().values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        kept = lab_cache() / "capabilities-0"
        probed = self._inside("/var/cache/libvirt/qemu/capabilities")
        if probed.is_dir():
            shutil.copytree(probed, kept, dirs_exist_ok=True)

    def _inside(self, path: str) -> Path:
        return self._fs / path.lstrip("/")


def _listens(address: Path) -> bool:
    """Whether it takes connections: the socket is there a moment earlier."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(address)) == 0


@contextmanager
def private_libvirtd(directory: Path, *, name: str = "host-1") -> Iterator[Libvirtd]:
    """One that runs, with all its guests, until the end of the block."""
    directory.mkdir(parents=True, exist_ok=True)
    made = Libvirtd(directory, name=name)
    try:
        made.start()
        yield made
    finally:
        made.close()
