# SPDX-License-Identifier: Apache-2.0
"""Starting the VM, and what comes out of it: one JSON object a line on its second serial port, {"case", ...}."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.lab.guest import build_guest
from tests.lab.install import STORAGE_PACKAGES
from tests.lab.paths import ROOT
from tests.lab.storage_vm.kernel import initramfs, unpacked_kernel

PROGRAM: Final = "tests.lab.storage_vm.inside"
_LOOK_EVERY: Final = 0.1  # the results lie in a file QEMU writes: there is nothing to wait on
_TOOLS: Final = (
    "qemu-system-x86_64",
    "busybox",
    "cpio",
    "depmod",
    "iscsid",
    "multipathd",
    "nvme",
    "cryptsetup",
    "rpc.nfsd",
    "rdma",
    "ip",
)
_CMDLINE: Final = (
    "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off nokaslr random.trust_cpu=on tsc=reliable "
    "no_timer_check"
)


def lacking() -> str | None:
    """What this machine lacks to run the VM, None where it has all."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    tools = [tool for tool in _TOOLS if shutil.which(tool, path=path) is None]
    if tools:
        return f"{', '.join(tools)} (packages {' '.join(STORAGE_PACKAGES)})"
    return None if os.geteuid() == 0 else "root, whose files the VM reads"


class Machine:
    """A running VM and its results."""

    def __init__(self, process: "subprocess.Popen[bytes]", directory: Path) -> None:
        self._process = process
        self._results = directory / "results"
        self._console = directory / "console"

    def result(self, case: str, *, silence: float) -> dict[str, Any]:
        """What a case saw; waits for it while cases end, none for `silence` seconds at most.

        RuntimeError with the console's end where the VM ended before it, or fell silent.
        """
        ended_cases, since = 0, time.monotonic()
        while True:
            ended = self._process.poll() is not None
            lines = self._lines()
            found = [line for line in lines if line["case"] == case]
            if found:
                return found[-1]
            if len(lines) > ended_cases:
                ended_cases, since = len(lines), time.monotonic()
            if ended or time.monotonic() > since + silence:
                why = "the VM ended" if ended else f"no case ended for {silence:g} s"
                raise RuntimeError(f"no result of {case}: {why}; its console:\n{self.console()[-6000:]}")
            time.sleep(_LOOK_EVERY)

    def console(self) -> str:
        """All that was printed inside."""
        return self._console.read_text(errors="replace") if self._console.exists() else ""

    def _lines(self) -> list[dict[str, Any]]:
        text = self._results.read_text(errors="replace") if self._results.exists() else ""
        complete = text.replace("\r", "").split("\n")[:-1]
        return [json.loads(line) for line in complete if line]


@contextmanager
def running_machine(
    directory: Path,
    *,
    memory_mib: int = 3072,
    form: str = "short",
    groups: Sequence[str] = (),
    program: str = PROGRAM,
) -> Iterator[Machine]:
    """Boot the VM with a program of ours as its work; the VM is killed with the block.

    `groups`: transports, all by default.
    """
    build_guest()  # here, since nothing the VM writes stays
    kernel = unpacked_kernel()
    words = f"tree={ROOT} python={sys.executable} modules={kernel.modules} module={program} form={form}"
    if groups:
        words += f" groups={','.join(groups)}"
    command = [
        "setpriv", "--pdeathsig", "KILL",  # it ends with the tests, however they end
        "nice", "-n", "-5",  # multipathd, udev and os-brick in it give up after times that are not ours to set
        "qemu-system-x86_64", "-machine", "pc", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,-la57",
        "-smp", "2", "-m", str(memory_mib), "-nodefaults", "-display", "none", "-no-reboot",
        "-kernel", str(kernel.image), "-initrd", str(initramfs(kernel, directory)),
        "-append", f"{_CMDLINE} {words}",
        "-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap",
        "-device", "virtio-9p-pci,fsdev=root,mount_tag=root",
        "-object", "rng-random,id=random,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=random",
        "-serial", f"file:{directory / 'console'}", "-serial", f"file:{directory / 'results'}",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        yield Machine(process, directory)
    finally:
        process.kill()
        process.wait()
