# SPDX-License-Identifier: Apache-2.0
"""What the kernel says of a block device and of those beneath it: sysfs, read only, no open, no root."""

import os
import stat
from pathlib import Path
from typing import Final

SYS: Final = Path("/sys")


def device_number(path: str) -> str | None:
    """`major:minor` behind a path, links followed; None where there is no block device."""
    try:
        status = os.stat(path)  # noqa: PTH116 - st_rdev
    except OSError:
        return None
    if not stat.S_ISBLK(status.st_mode):
        return None
    return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"


def beneath(number: str, root: Path = SYS) -> frozenset[str]:
    """The device and all it is stacked on (the paths of a multipath map), as `major:minor`."""
    found: set[str] = set()
    todo = [number]
    while todo:
        current = todo.pop()
        if current in found:
            continue
        found.add(current)
        todo.extend(filter(None, (_text(slave / "dev") for slave in _slaves(current, root))))
    return frozenset(found)


def is_crypt(number: str, root: Path = SYS) -> bool:
    """Whether it is a dm-crypt map, which does not grow with the device beneath it."""
    return _text(_device(number, root) / "dm" / "uuid").startswith("CRYPT-")


def paths_not_running(number: str, root: Path = SYS) -> tuple[str, ...]:
    """The SCSI paths of a map that the kernel does not call running, as `sdb (offline)`."""
    states = {slave.name: _text(slave / "device" / "state") for slave in _slaves(number, root)}
    return tuple(f"{name} ({state})" for name, state in sorted(states.items()) if state not in {"", "running"})


def _device(number: str, root: Path) -> Path:
    return root / "dev" / "block" / number


def _slaves(number: str, root: Path) -> list[Path]:
    try:
        return list((_device(number, root) / "slaves").iterdir())
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
