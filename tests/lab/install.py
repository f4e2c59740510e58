# SPDX-License-Identifier: Apache-2.0
"""Set-up for the tools: Debian packages and a virtualenv in the working tree. Standard library only, Python ≥ 3.11.

Runs before anything is installed, so it imports nothing of the project. Says what it does and how long it takes,
and does nothing when everything is there.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

TREE: Final = Path(__file__).resolve().parents[2]
VENV: Final = TREE / ".venv"
_STAMP: Final = VENV / ".extend-bridge"

HYPERVISOR_PACKAGES: Final = (
    "qemu-system-x86", "qemu-utils", "libvirt-daemon", "libvirt-daemon-driver-qemu", "libvirt-dev", "gcc",
    "libc6-dev", "pkg-config", "util-linux",
)  # fmt: skip
LIBVIRT_PACKAGES: Final = ("libvirt-dev", "gcc", "libc6-dev", "pkg-config")
"""What building libvirt-python takes; no hypervisor."""
BROKER_PACKAGES: Final = ("rabbitmq-server",)
DATABASE_PACKAGES: Final = ("mariadb-server", "postgresql")
CEPH_PACKAGES: Final = ("ceph-mon", "ceph-osd", "ceph-common", "qemu-block-extra", "cryptsetup-bin")
"""A Ceph of one's own and QEMU's way to it (52 packages, 35 s), and what makes a LUKS header."""
OPERATOR_PACKAGES: Final = ("chromium", "prometheus", "sudo", "systemd")
"""What looks at the report's page, the alert rules, the sudo rules and the units."""
STORAGE_PACKAGES: Final = (
    "busybox-static", "cpio", "kmod", "udev", "open-iscsi", "multipath-tools", "lsscsi", "nvme-cli",
    "cryptsetup-bin", "nfs-kernel-server", "nfs-common", "iproute2",
)  # fmt: skip
"""What the storage VM boots with and finds inside; its kernel is downloaded and unpacked, never installed."""

EXIT_UNREACHABLE: Final = 3


def ensure(*, packages: Sequence[str], extras: Sequence[str]) -> Path:
    """Have these Debian packages and the project with these extras in .venv; the virtualenv's python.

    Ends the process with one line that says what to do where it cannot.
    """
    _packages([*packages, *_python_packages()])
    return _virtualenv(extras)


def run_in_venv(python: Path, module: str, argv: Sequence[str]) -> NoReturn:
    """Become `python -m module argv` of the virtualenv, from the top of the tree."""
    environment = dict(os.environ, PYTHONPATH=str(TREE), PYTHONUNBUFFERED="1")
    os.chdir(TREE)
    os.execve(python, [str(python), "-m", module, *argv], environment)


def say(text: str) -> None:
    """A line on standard error: standard output belongs to the tool."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _python_packages() -> list[str]:
    """Debian splits what building a virtualenv and libvirt-python needs off its python3."""
    if Path(sys.executable).resolve().parent != Path("/usr/bin"):
        return []
    packages = [] if _has_ensurepip() else ["python3-venv"]
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return packages if header.exists() else [*packages, "python3-dev"]


def _has_ensurepip() -> bool:
    return (
        subprocess.run([sys.executable, "-c", "import ensurepip"], capture_output=True, check=False).returncode == 0
    )


def _packages(wanted: Sequence[str]) -> None:
    missing = [package for package in wanted if not _installed(package)]
    if not missing:
        return
    command = f"apt-get install --no-install-recommends {' '.join(missing)}"
    if shutil.which("apt-get") is None:
        _give_up(f"this machine has no apt-get; install what Debian calls {' '.join(missing)}, then run this again")
    if os.geteuid() != 0:
        _give_up(f"some packages are missing; as root run `{command}`, then run this again")
    # RUNLEVEL=1 keeps packages from starting daemons of their own; we start private ones
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive", RUNLEVEL="1")
    _step("package lists", ["apt-get", "update", "-q"], environment)
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *missing]
    _step(f"packages {' '.join(missing)}", install, environment)


def _installed(package: str) -> bool:
    query = ["dpkg-query", "-W", "-f", "${db:Status-Status}", package]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=False).stdout == "installed"
    except FileNotFoundError:
        return False


def _virtualenv(extras: Sequence[str]) -> Path:
    python = VENV / "bin" / "python"
    fingerprint = hashlib.sha256((TREE / "pyproject.toml").read_bytes() + sys.version.encode()).hexdigest()
    stamp = _STAMP.read_text().split() if _STAMP.exists() else []
    current = stamp[:1] == [fingerprint] and python.exists()
    have = set(stamp[1:]) if current else set()
    if current and set(extras) <= have:
        return python
    if not python.exists():
        _step("virtualenv .venv", [sys.executable, "-m", "venv", str(VENV)])
    every = sorted(have | set(extras))
    target = f"{TREE}[{','.join(every)}]" if every else str(TREE)
    _step(
        f"project with {', '.join(every) or 'no extras'}", [str(python), "-m", "pip", "install", "-q", "-e", target]
    )
    _STAMP.write_text("\n".join([fingerprint, *every]))
    return python


def _step(what: str, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
    """Run one command of the set-up quietly; on failure show the end of what it said."""
    started = time.monotonic()
    sys.stderr.write(f"set-up: {what} ...")
    sys.stderr.flush()
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment, check=False
        )
        say(f" {time.monotonic() - started:.0f} s" if done.returncode == 0 else " failed")
        if done.returncode != 0:
            output.seek(0)
            say(output.read().decode(errors="replace")[-3000:])
            _give_up(f"{' '.join(command[:4])} ... ended with {done.returncode}; mend that and run this again")


def _give_up(why: str) -> NoReturn:
    say(f"set-up: {why}")
    raise SystemExit(EXIT_UNREACHABLE)
