# SPDX-License-Identifier: Apache-2.0
"""Checks of the host from where the agent runs.

They need neither a hypervisor's library nor os-brick and create nothing, so that `extend-bridge-status`
runs on any machine.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hostagent.brick import lock
from hostagent.brick.key_manager import missing
from hostagent.capabilities import installed
from hostagent.drivers.base import Probe, ProbeFacts
from hostagent.drivers.connects import why_not_connected
from hostagent.settings import BrickSettings, HostAgentSettings

_MULTIPATHD: Final = "\0/org/kernel/linux/storage/multipathd"
"""An abstract socket, which belongs to a network namespace; so since multipath-tools 0.5."""


def facts_of(settings: HostAgentSettings, root: Path = Path("/")) -> ProbeFacts:
    """Return what a driver may know of the agent's configuration."""
    return ProbeFacts(
        root=root,
        read_only=settings.read_only,
        nova_conf=settings.nova_conf,
        use_multipath=settings.brick.use_multipath,
        lock_path=settings.brick.lock_path,
    )


def probes(
    settings: HostAgentSettings, *, root: Path = Path("/"), multipathd: str = _MULTIPATHD
) -> Iterator[Probe]:
    """Yield a probe for each thing that the agent needs; `root` and `multipathd` are others in tests."""
    yield from settings.driver.driver.probes(settings.driver.settings, facts_of(settings, root))
    if settings.read_only:
        return
    yield Probe(about="/dev", wrong=_devices(root / "dev"))
    yield Probe(about="/sys", wrong=_writable(root / "sys" / "class" / "scsi_host", root / "sys"))
    yield Probe(about="/run/udev", wrong=_udev(root / "run" / "udev"))
    yield Probe(about="the lock directory", wrong=_lock(settings.brick))
    if settings.brick.key_manager is not None:
        yield Probe(about="volumes' keys", wrong=missing(opted_in=True) or _cryptsetup())
    if settings.brick.use_multipath:
        yield Probe(about="multipathd", wrong=_multipathd(multipathd))


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
    why_not = why_not_connected(address)
    if why_not is None:
        return None
    return f"multipathd does not answer ({why_not}): is it running, and does the container have the host's network?"
