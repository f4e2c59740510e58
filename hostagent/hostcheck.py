# SPDX-License-Identifier: Apache-2.0
"""Checks of the host from where the agent runs, and of the settings that nova-compute must share with it.

They need neither libvirt nor os-brick and create nothing, so that `extend-bridge-status` runs on any machine.
"""

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from oslo_config import cfg

from hostagent.brick import lock
from hostagent.brick.key_manager import missing
from hostagent.capabilities import installed
from hostagent.settings import BrickSettings, HostAgentSettings

LOG = logging.getLogger(__name__)

_NOVA_LIBVIRT = [cfg.BoolOpt("volume_use_multipath", default=False, deprecated_name="iscsi_use_multipath")]
_LOCKS = [cfg.StrOpt("lock_path")]


def disagreements(files: Sequence[str], settings: BrickSettings) -> list[str]:
    """Return where nova-compute is configured otherwise, each a line to act on; none without a nova.conf.

    Not agreed upon, multipath has os-brick rescan a path and leave its map small, or look for a map that is not
    there; the lock directory has two processes rescan the same device at once.
    """
    there = [name for name in files if Path(name).exists()]
    if not there:
        return []
    if closed := [name for name in there if not os.access(name, os.R_OK)]:
        return [
            f"{', '.join(closed)} cannot be read: see by hand that use_multipath and lock_path agree with Nova's"
        ]
    nova = cfg.ConfigOpts()
    nova.register_opts(_NOVA_LIBVIRT, group="libvirt")
    nova.register_opts(_LOCKS, group="oslo_concurrency")
    try:
        nova([], project="nova", default_config_files=there, default_config_dirs=[])
        multipath, locks = nova.libvirt.volume_use_multipath, nova.oslo_concurrency.lock_path
    except (cfg.Error, ValueError) as ex:
        return [f"{', '.join(there)} cannot be understood ({type(ex).__name__}): not compared with Nova's settings"]
    found = []
    if multipath != settings.use_multipath:
        found.append(
            f"[hostagent] use_multipath is {settings.use_multipath}, nova-compute's [libvirt] volume_use_multipath "
            f"is {multipath}: they must be equal"
        )
    if locks and not _same(locks, settings.lock_path):
        found.append(
            f"[hostagent] lock_path is {settings.lock_path}, nova-compute's [oslo_concurrency] lock_path is "
            f"{locks}: they must be the same directory"
        )
    return found


def warn(files: Sequence[str], settings: BrickSettings) -> None:
    """Log each of them."""
    for line in disagreements(files, settings):
        LOG.warning("%s", line)


def _same(one: str, other: str) -> bool:
    return Path(one).resolve() == Path(other).resolve()


_MULTIPATHD: Final = "\0/org/kernel/linux/storage/multipathd"
"""An abstract socket, which belongs to a network namespace; so since multipath-tools 0.5."""
_LIBVIRT: Final = ("libvirt-sock", "virtqemud-sock")


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A check and its result: what is wrong, in words to act on; None: nothing."""

    about: str
    wrong: str | None
    fatal: bool = True


def probes(
    settings: HostAgentSettings, *, root: Path = Path("/"), multipathd: str = _MULTIPATHD
) -> Iterator[Probe]:
    """Yield a probe for each thing that the agent needs; `root` and `multipathd` are others in tests."""
    if settings.libvirt_uri == "qemu:///system":
        yield Probe(about="libvirt's socket", wrong=_libvirt(root / "run" / "libvirt", settings.read_only))
    if settings.read_only:
        return
    yield Probe(about="/dev", wrong=_devices(root / "dev"))
    yield Probe(about="/sys", wrong=_writable(root / "sys" / "class" / "scsi_host", root / "sys"))
    yield Probe(about="/run/udev", wrong=_udev(root / "run" / "udev"))
    yield Probe(about="the lock directory", wrong=_lock(settings.brick))
    files = [str(root / name.lstrip("/")) for name in settings.nova_conf]
    differ = "; ".join(disagreements(files, settings.brick))
    yield Probe(about="nova-compute's settings", wrong=differ or None, fatal=False)
    if settings.brick.key_manager is not None:
        yield Probe(about="volumes' keys", wrong=missing(opted_in=True) or _cryptsetup())
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


def _lock(brick: BrickSettings) -> str | None:
    """Lock a file without a name: it shows a file system without locks and leaves nothing behind."""
    directory = Path(brick.lock_path)
    if brick.own_locks and not directory.exists():
        above = next(parent for parent in directory.parents if parent.exists())
        writable = os.access(above, os.W_OK | os.X_OK)
        return None if writable else f"[hostagent] state_path: {above} cannot be written by this user"
    if (wrong := lock.trouble(brick.lock_path)) is not None:
        return f"[hostagent] lock_path: {wrong}"
    try:
        file = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None  # a file system without nameless files; os-brick's own lock will tell
    try:
        os.lockf(file, os.F_TLOCK, 0)
    except OSError as ex:
        return f"{directory}: {ex.strerror}; os-brick cannot lock there"
    finally:
        os.close(file)
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
