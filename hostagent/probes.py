# SPDX-License-Identifier: Apache-2.0
"""What the host agent must see of its host, looked at from where this runs: in a container, from inside of it.

Needs neither libvirt nor os-brick, so that `extend-bridge-status` can ask on any machine.
"""

import os
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hostagent.beside_nova import disagreements
from hostagent.capabilities import installed
from hostagent.key_manager import missing
from hostagent.settings import HostAgentSettings

_MULTIPATHD: Final = "\0/org/kernel/linux/storage/multipathd"
"""An abstract socket, which belongs to a network namespace; so since multipath-tools 0.5."""
_LIBVIRT: Final = ("libvirt-sock", "virtqemud-sock")


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What was looked at, and what is wrong with it in words to act on; None: it is as it has to be."""

    about: str
    wrong: str | None
    fatal: bool = True


def probes(
    settings: HostAgentSettings, *, root: Path = Path("/"), multipathd: str = _MULTIPATHD
) -> Iterator[Probe]:
    """Each thing the agent needs; `root` and `multipathd` are others in tests."""
    if settings.libvirt_uri == "qemu:///system":
        yield Probe(about="libvirt's socket", wrong=_libvirt(root / "run" / "libvirt", settings.read_only))
    if settings.read_only:
        return
    yield Probe(about="/dev", wrong=_devices(root / "dev"))
    yield Probe(about="/sys", wrong=_writable(root / "sys" / "class" / "scsi_host", root / "sys"))
    yield Probe(about="/run/udev", wrong=_udev(root / "run" / "udev"))
    yield Probe(about="the lock directory", wrong=_lock(Path(settings.brick.lock_path)))
    files = [str(root / name.lstrip("/")) for name in settings.nova_conf]
    differ = "; ".join(disagreements(files, settings.brick))
    yield Probe(about="nova-compute's settings", wrong=differ or None, fatal=False)
    if settings.brick.key_manager is not None:
        yield Probe(about="volumes' keys", wrong=missing(settings.brick.key_manager) or _cryptsetup())
    if settings.brick.use_multipath:
        yield Probe(about="multipathd", wrong=_multipathd(multipathd))


def _libvirt(directory: Path, read_only: bool) -> str | None:
    said = f"no socket of libvirt in {directory}: is it the host's, and mounted into the container?"
    for name in _LIBVIRT:
        path = directory / (f"{name}-ro" if read_only else name)
        if not path.exists():
            continue
        why_not = _connects(str(path))
        if why_not is None:
            return None
        said = f"{path}: {why_not}"
    return said


def _devices(dev: Path) -> str | None:
    if not (dev / "disk").is_dir() and not (dev / "mapper").is_dir():
        return f"{dev} has neither disk/ nor mapper/: it is the container's own, mount the host's"
    return None


def _writable(shown: Path, sys: Path) -> str | None:
    if not (sys / "class").is_dir():
        return f"{sys} is not there: mount the host's"
    scans = [path / "scan" for path in shown.iterdir()] if shown.is_dir() else []
    if any(not os.access(path, os.W_OK) for path in scans):
        return f"{sys} cannot be written: no device can be rescanned; mount the host's, not read-only"
    return None


def _udev(run: Path) -> str | None:
    if not (run / "data").is_dir():
        return f"{run} is not the host's: names below /dev/disk are missing or wrong; mount it"
    return None


def _lock(directory: Path) -> str | None:
    """Made, locked and gone again: a file system without locks shows here."""
    try:
        with tempfile.NamedTemporaryFile(dir=directory, prefix="extend-bridge-status-") as file:
            os.lockf(file.fileno(), os.F_TLOCK, 0)
    except OSError as ex:
        return f"{directory}: {ex.strerror}; os-brick cannot lock there"
    return None


def _cryptsetup() -> str | None:
    return None if installed("cryptsetup") else "cryptsetup is not installed: no dm-crypt map can be resized"


def _multipathd(address: str) -> str | None:
    why_not = _connects(address)
    if why_not is None:
        return None
    return f"multipathd does not answer ({why_not}): is it running, and does the container have the host's network?"


def _connects(address: str) -> str | None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(5)
        try:
            probe.connect(address)
        except OSError as ex:
            return ex.strerror or type(ex).__name__
    return None
