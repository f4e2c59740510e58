# SPDX-License-Identifier: Apache-2.0
"""Chroots of a Debian release, made by mmdebstrap from apt alone. Standard library only.

Commands run in namespaces of their own, so nothing is left running. Services of packages are never started.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.lab.install import say
from tests.lab.leftovers import OUTSIDE, RUN, TIMES
from tests.lab.paths import LAB

_PASSED_ON: Final = (
    "CI",
    "PIP_",
    "SSL_CERT",
    "REQUESTS_CA",
    "CURL_CA",
    "http_proxy",
    "https_proxy",
    "EXTEND_BRIDGE_",
)

_ENTER: Final = """
mount --bind "$R" "$R"
mount --rbind /dev "$R/dev"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$R/dev/pts"
mount --bind "$R/dev/pts/ptmx" "$R/dev/ptmx" 2>/dev/null
mount -t tmpfs -o mode=1777 tmpfs "$R/dev/shm"
mount -t proc proc "$R/proc"
mount --rbind /sys "$R/sys"
mount -t tmpfs -o mode=755 tmpfs "$R/run"
mkdir -p "$R/run/lock"
chmod 1777 "$R/run/lock"
exec chroot "$R" "$@"
"""


def make_chroot(suite: str, root: Path, *, include: str = "") -> None:
    """Make the chroot of a release with these packages; raises CalledProcessError."""
    say(f"chroot: {suite} from apt")
    part = root.with_name(f"{root.name}.part")
    for old in (root, part):
        shutil.rmtree(old, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    options = [f"--aptopt=Acquire::{name}" for name in ('Check-Valid-Until "false"', 'Languages "none"')]
    command = [
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        "--format=directory",
        "--keyring=/usr/share/keyrings",
    ]
    packages = [f"--include={include}"] if include else []
    subprocess.run([*command, *options, *packages, suite, str(part)], check=True)
    for file in ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf"):
        if Path(file).exists():
            shutil.copy(file, part / "etc")
    certificates = list(Path("/usr/local/share/ca-certificates").glob("*.crt"))
    if certificates and (part / "usr/sbin/update-ca-certificates").exists():
        for certificate in certificates:
            shutil.copy(certificate, part / "usr/local/share/ca-certificates")
        inside = {name: value for name, value in os.environ.items() if name != "TMPDIR"}
        update = ["chroot", str(part), "update-ca-certificates"]
        subprocess.run(update, check=True, capture_output=True, env=inside)
    policy = part / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    part.rename(root)


def copy_of(root: Path, target: Path) -> Path:
    """Copy a chroot to a place of its own, so that what is done in it is forgotten."""
    subprocess.run(["cp", "-a", "--reflink=auto", str(root), str(target)], check=True)
    return target


def command_inside(root: Path, command: str) -> list[str]:
    """Return the command that runs a shell command in the chroot, in namespaces that end with it and its caller.

    The shell stays the first process there, because it collects children whose parents have ended. Without that a
    killed QEMU remains as a zombie, and libvirt says that the process cannot be terminated.
    """
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
    tied = ["setpriv", "--pdeathsig", "KILL"]
    return [*tied, *unshare, "bash", "-c", _ENTER, "enter", "bash", "-c", f"{command}\nexit $?"]


def environment_inside(root: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a command in the chroot."""
    environment = {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}
    for path in (RUN, OUTSIDE, TIMES, LAB):  # they are not there
        environment.pop(path, None)
    environment |= {"HOME": "/root", "TERM": "dumb", "LANG": "C.UTF-8", "R": str(root.resolve())}
    environment["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return environment | dict(more or {})


def run_inside(root: Path, command: str) -> int:
    """Run a shell command in the chroot; return its exit code."""
    return subprocess.run(
        command_inside(root, command), env=environment_inside(root), stdin=subprocess.DEVNULL, check=False
    ).returncode


def output_inside(root: Path, command: str, **more: str) -> str:
    """Run a shell command in the chroot; return its output. Raises RuntimeError with its last words."""
    done = subprocess.run(
        command_inside(root, command), env=environment_inside(root, more), stdin=subprocess.DEVNULL, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"`{command[:200]}` ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout
