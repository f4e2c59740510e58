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
import threading
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

from tests.lab import leftovers
from tests.lab.first_process import stay_first

TREE: Final = Path(__file__).resolve().parents[2]
VENV: Final = TREE / ".venv"
_STAMP: Final = VENV / ".extend-bridge"
_POLICY: Final = Path("/usr/sbin/policy-rc.d")
_LISTED: Final = threading.Event()
"""Set once the package lists are those of today."""

HYPERVISOR_PACKAGES: Final = (
    "qemu-system-x86", "qemu-utils", "libvirt-daemon", "libvirt-daemon-driver-qemu", "libvirt-dev", "gcc",
    "libc6-dev", "libcrypt-dev", "pkg-config", "util-linux",
)  # fmt: skip
NEWER_PACKAGES: Final = ("libvirt-daemon-driver-secret",)
"""Parts of the hypervisor that newer releases have in packages of their own; elsewhere they are left out."""
OPTIONAL_EXTRAS: Final = ("serving",)
"""Extras whose packages cannot be built everywhere (uWSGI); the set-up goes on without them and says so."""
LEFT_OUT: Final = VENV / ".left-out"
"""The extras that could not be installed, one a line."""
LIBVIRT_PACKAGES: Final = ("libvirt-dev", "gcc", "libc6-dev", "pkg-config")
"""What building libvirt-python takes; no hypervisor."""
_VENV_PACKAGE: Final = "python3-venv"
"""What pip needs before it can begin."""
_BUILT: Final = ("libvirt-python", "uwsgi")
"""Requirements that pip compiles: they wait for apt's compiler and headers, all others do not."""
BROKER_PACKAGES: Final = ("rabbitmq-server",)
DATABASE_PACKAGES: Final = ("mariadb-server", "postgresql", "pgbouncer", "galera-4", "rsync")
"""rsync carries the state of one Galera node to the next."""
CEPH_PACKAGES: Final = ("ceph-mon", "ceph-osd", "ceph-common", "qemu-block-extra", "cryptsetup-bin")
"""A Ceph of one's own and QEMU's way to it (52 packages, 35 s), and what makes a LUKS header."""
LIVE_PACKAGES: Final = ("python3-rados", "python3-rbd")
"""Ceph's libraries for Python, which PyPI does not have and Cinder's RBD driver needs."""
MODEL_PACKAGES: Final = ("spin", "gcc", "libc6-dev")
RECIPE_PACKAGES: Final = ("jq",)
"""What runs the recipes for audit logs in the unit tests."""
OPERATOR_PACKAGES: Final = ("chromium", "prometheus", "sudo", "systemd")
"""What looks at the report's page, the alert rules, the sudo rules and the units."""
PACKAGING_PACKAGES: Final = ("buildah", "mmdebstrap")
"""What makes OCI images and the chroots in which packages are built and installed."""
STORAGE_PACKAGES: Final = (
    "busybox-static", "cpio", "kmod", "udev", "open-iscsi", "multipath-tools", "lsscsi", "nvme-cli",
    "cryptsetup-bin", "nfs-kernel-server", "nfs-common", "iproute2", "cloud-guest-utils", "xfsprogs", "btrfs-progs",
    "lvm2", "fdisk",
)  # fmt: skip
"""What the storage VM boots with and finds inside; its kernel is downloaded and unpacked, never installed."""

GUESTS_PACKAGES: Final = ("busybox-static", "cpio", "kmod")
"""What a guest with Debian's kernel boots with; the kernel is downloaded and unpacked, never installed."""

LASTMILE_PACKAGES: Final = (
    "qemu-system-x86", "mmdebstrap", "busybox-static", "cpio", "kmod", "e2fsprogs", "fdisk", "util-linux",
    "debian-archive-keyring",
)  # fmt: skip
"""What the guest of tools/lastmile is made with and runs on; its own packages come from apt into its own files."""

EXIT_UNREACHABLE: Final = 3


def ensure(*, packages: Sequence[str], extras: Sequence[str]) -> Path:
    """Have these Debian packages and the project with these extras in .venv; the virtualenv's python.

    Ends the process with one line that says what to do where it cannot.
    """
    stay_first()
    wanted = [*packages, *_python_packages()]
    add_packages([package for package in wanted if package == _VENV_PACKAGE])
    with ThreadPoolExecutor(1) as pool:  # pip downloads and unpacks while apt does the same
        others = pool.submit(add_packages, wanted)
        return _virtualenv(extras, others.result)


def run_in_venv(python: Path, module: str, argv: Sequence[str]) -> NoReturn:
    """Become `python -m module argv` of the virtualenv, from the top of the tree."""
    environment = dict(os.environ, PYTHONPATH=str(TREE), PYTHONUNBUFFERED="1")
    outside = tempfile.gettempdir()
    if leftovers.guarded(environment):
        environment[leftovers.OUTSIDE] = outside
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
    packages = [] if _has_ensurepip() else [_VENV_PACKAGE]
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return packages if header.exists() else [*packages, "python3-dev"]


def _has_ensurepip() -> bool:
    return (
        subprocess.run([sys.executable, "-c", "import ensurepip"], capture_output=True, check=False).returncode == 0
    )


def add_packages(wanted: Sequence[str]) -> None:
    """Install the Debian packages that are missing; no service is started or left enabled."""
    if "libvirt-daemon-driver-qemu" in wanted:
        wanted = [*wanted, *filter(_available, NEWER_PACKAGES)]
    missing = [package for package in wanted if not _installed(package)]
    if not missing:
        return
    command = f"apt-get install --no-install-recommends {' '.join(missing)}"
    if shutil.which("apt-get") is None:
        _give_up(f"this machine has no apt-get; install what Debian calls {' '.join(missing)}, then run this again")
    if os.geteuid() != 0:
        _give_up(f"some packages are missing; as root run `{command}`, then run this again")
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    if not _LISTED.is_set():
        _step("package lists", ["apt-get", "update", "-q"], environment)
        _LISTED.set()
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *missing]
    with _no_services():
        _step(f"packages {' '.join(missing)}", install, environment)


@contextmanager
def _no_services() -> Iterator[None]:
    """Keep packages from starting their services, and disable those that they enable; tests start private ones."""
    before = _enabled_units()
    ours = not _POLICY.exists()
    if ours:
        _POLICY.write_text("#!/bin/sh\n# tools/test is installing packages\nexit 101\n")
        _POLICY.chmod(0o755)
    try:
        yield
    finally:
        if ours:
            _POLICY.unlink(missing_ok=True)
        if enabled := sorted(_enabled_units() - before):
            subprocess.run(["systemctl", "--root=/", "-q", "disable", *enabled], check=False, capture_output=True)


def _enabled_units() -> set[str]:
    """Return the enabled units of systemd; none where there is no systemd."""
    if shutil.which("systemctl") is None:
        return set()
    command = ["systemctl", "--root=/", "list-unit-files", "--state=enabled", "--no-legend", "--plain"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return {line.split()[0] for line in done.stdout.splitlines() if line.strip()}


def _available(package: str) -> bool:
    """Return whether this release has a package of that name."""
    if shutil.which("apt-cache") is None:
        return False
    return bool(subprocess.run(["apt-cache", "show", package], capture_output=True, check=False).stdout)


def _installed(package: str) -> bool:
    query = ["dpkg-query", "-W", "-f", "${db:Status-Status}", package]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=False).stdout == "installed"
    except FileNotFoundError:
        return False


def _virtualenv(extras: Sequence[str], compiler: Callable[[], None]) -> Path:
    """Have the project with these extras in .venv; `compiler` returns when apt has what pip builds with."""
    python = VENV / "bin" / "python"
    fingerprint = hashlib.sha256((TREE / "pyproject.toml").read_bytes() + sys.version.encode()).hexdigest()
    stamp = _STAMP.read_text().split() if _STAMP.exists() else []
    current = stamp[:1] == [fingerprint] and python.exists()
    have = set(stamp[1:]) if current else set()
    if current and set(extras) <= have:
        compiler()
        return python
    if not python.exists():
        _step("virtualenv .venv", [sys.executable, "-m", "venv", str(VENV)])
    every = sorted(have | set(extras))
    without = [extra for extra in every if extra not in OPTIONAL_EXTRAS]
    _step("Python packages", [*_pip_install(python), *_downloaded(every)], may_fail=True)  # else the next tells why
    compiler()
    left_out: list[str] = []
    if not _install(python, every, may_fail=every != without):
        left_out = [extra for extra in every if extra not in without]
        say(f"set-up: left out, since it cannot be built here: {', '.join(left_out)}")
        _install(python, without, may_fail=False)
    LEFT_OUT.write_text("".join(f"{extra}\n" for extra in left_out))
    _STAMP.write_text("\n".join([fingerprint, *every]))
    return python


def _downloaded(extras: Sequence[str]) -> list[str]:
    """Return the requirements of the project with these extras that need no compiler."""
    project = tomllib.loads((TREE / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    every = [*project["dependencies"], *(requirement for extra in extras for requirement in optional[extra])]
    return [requirement for requirement in every if not requirement.lower().startswith(_BUILT)]


def _pip_install(python: Path) -> list[str]:
    return [str(python), "-m", "pip", "install", "-q", "--no-compile"]


def _install(python: Path, extras: Sequence[str], *, may_fail: bool) -> bool:
    target = f"{TREE}[{','.join(extras)}]" if extras else str(TREE)
    command = [*_pip_install(python), "-e", target]
    return _step(f"project with {', '.join(extras) or 'no extras'}", command, may_fail=may_fail)


def _step(
    what: str, command: Sequence[str], environment: dict[str, str] | None = None, *, may_fail: bool = False
) -> bool:
    """Run one command of the set-up quietly; when it fails, show the end of its output and end the process."""
    started = time.monotonic()
    say(f"set-up: {what} ...")
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment, check=False
        )
        say(f"set-up: {what}: {f'{time.monotonic() - started:.0f} s' if done.returncode == 0 else 'failed'}")
        if done.returncode != 0 and not may_fail:
            output.seek(0)
            say(output.read().decode(errors="replace")[-3000:])
            _give_up(f"{' '.join(command[:4])} ... ended with {done.returncode}; mend that and run this again")
        return done.returncode == 0


def _give_up(why: str) -> NoReturn:
    say(f"set-up: {why}")
    raise SystemExit(EXIT_UNREACHABLE)
