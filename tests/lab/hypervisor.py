# SPDX-License-Identifier: Apache-2.0
"""A hypervisor of one's own: libvirt inside a process (qemu:///embed), its state in one directory.

Rules of embed, all measured: an event implementation is registered before the first open; qemu.conf is read from
ROOT/etc; one process per ROOT at a time; a domain outlives the process, and the next one that opens ROOT has it.
Hence `start` and `define` run in a short process of their own and leave ROOT free for the agent.
"""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.lab.paths import ROOT as TREE
from tests.lab.paths import lab_cache

_CONF = 'stdio_handler = "file"\nsecurity_driver = "none"\nnamespaces = []\ncgroup_controllers = []\n'
_ROOT_CONF = 'user = "root"\ngroup = "root"\ndynamic_ownership = 0\nremember_owner = 0\n'
_USER = "libvirt-qemu"


def have_hypervisor() -> bool:
    """Whether QEMU, a compiler for the guest and libvirt's binding are there, and its QEMU driver can start."""
    try:
        import libvirt  # noqa: F401, PLC0415 - looked for, not used
    except ImportError:
        return False
    if os.geteuid() == 0 and not _user_known():
        return False
    return shutil.which("qemu-system-x86_64") is not None and shutil.which("gcc") is not None


def prepare_machine() -> None:
    """Root only: have the system user libvirt's QEMU driver looks up before it reads any configuration.

    On Debian the package libvirt-daemon-system makes it, with a daemon, a firewall and a network that nobody here
    wants. Nothing ever runs as this user: qemu.conf says root. For tools/demo and tools/test, with their packages.
    """
    if os.geteuid() != 0 or _user_known():
        return
    subprocess.run(["groupadd", "--system", "--force", _USER], check=True)
    subprocess.run(
        ["useradd", "--system", "--gid", _USER, "--no-create-home", "--home-dir", "/nonexistent",
         "--shell", "/usr/sbin/nologin", _USER],
        check=True,
    )  # fmt: skip


def _user_known() -> bool:
    try:
        pwd.getpwnam(_USER)
    except KeyError:
        return False
    return True


class Hypervisor:
    """One embed root. `directory` should be short-lived and not too deep: QEMU's sockets lie in it (108 bytes)."""

    def __init__(self, directory: Path) -> None:
        self.root = directory
        (self.root / "etc").mkdir(parents=True, exist_ok=True)
        conf = _CONF + (_ROOT_CONF if os.geteuid() == 0 else "")
        (self.root / "etc" / "qemu.conf").write_text(conf)
        self._capabilities = self.root / "cache" / "qemu" / "capabilities"
        self._kept = lab_cache() / f"capabilities-{os.geteuid()}"
        if self._kept.is_dir():  # probing QEMU costs seconds; libvirt checks itself that what it finds still holds
            shutil.copytree(self._kept, self._capabilities, dirs_exist_ok=True)

    @property
    def uri(self) -> str:
        """What the agent is given as libvirt_uri."""
        return f"qemu:///embed?root={self.root}"

    def start(self, xml: str) -> None:
        """Start a transient domain and let go of the root."""
        self._apart("start", xml)

    def define(self, xml: str) -> None:
        """Define a domain that stays off and let go of the root."""
        self._apart("define", xml)

    def keep_capabilities(self) -> None:
        """Keep what was probed for the next root."""
        if self._capabilities.is_dir():
            shutil.copytree(self._capabilities, self._kept, dirs_exist_ok=True)

    def pids(self) -> dict[str, int]:
        """Domain name → pid of its QEMU, for those alive that carry this root in their command line."""
        found = {}
        for file in (self.root / "run" / "qemu").glob("*.pid"):
            with suppress(OSError, ValueError):
                pid = int(file.read_text())
                if str(self.root) in Path(f"/proc/{pid}/cmdline").read_text(errors="replace"):
                    found[file.stem] = pid
        return found

    def destroy_leftovers(self) -> None:
        """End every QEMU of this root by its pid; for when no process has the root open any more."""
        for pid in self.pids().values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while self.pids() and time.monotonic() < deadline:
            time.sleep(0.02)

    def _apart(self, verb: str, xml: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "tests.lab.hypervisor", verb, str(self.root)],
            input=xml, text=True, capture_output=True, check=False, cwd=TREE,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"the domain did not {verb}: {done.stderr[-2000:]}")
        self.keep_capabilities()


@contextmanager
def private_hypervisor(directory: Path) -> Iterator[Hypervisor]:
    """A hypervisor whose guests end with the block."""
    hypervisor = Hypervisor(directory)
    try:
        yield hypervisor
    finally:
        hypervisor.keep_capabilities()
        hypervisor.destroy_leftovers()


def open_here(hypervisor: Hypervisor) -> Any:
    """A libvirt connection to the root in this very process."""
    from hostagent.drivers.libvirt.connect import open_libvirt  # noqa: PLC0415 - this module can say that libvirt is missing

    return open_libvirt(hypervisor.uri)


def main(verb: str, root: str) -> None:
    """The short process: `start` or `define` with the domain's XML on standard input."""
    connection = open_here(Hypervisor(Path(root)))
    xml = sys.stdin.read()
    if verb == "start":
        connection.createXML(xml, 0)
    else:
        connection.defineXML(xml)


if __name__ == "__main__":
    if sys.argv[1:] == ["prepare"]:
        prepare_machine()
    else:
        main(*sys.argv[1:3])
    os._exit(0)  # libvirt's threads have nothing to say any more; the domain goes on
