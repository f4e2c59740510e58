# SPDX-License-Identifier: Apache-2.0
"""Evidence that a guest has a size: the text of its console, and the inventory of the bridge."""

import json
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

_BLOCK: Final = 512
_LOOK_EVERY: Final = 1.0
_COMMAND_SECONDS: Final = 120.0


class CommandFailedError(Exception):
    """The operator CLI cannot be run, or ended with an error."""


def console_shows(text: str, patterns: Iterable[str], size: int) -> bool:
    """Return whether a console has printed this size of a disk, in bytes. Raises re.error for a bad pattern."""
    names = {"{bytes}": str(size), "{blocks}": str(size // _BLOCK)}
    return any(re.search(_filled(pattern, names), text) for pattern in patterns)


def size_in(rows: Iterable[Mapping[str, Any]], volume_id: str) -> int | None:
    """Return the size that a guest sees of a volume, by the rows of `host show`; None where no row has the volume.

    A volume on several servers counts with its smallest size.
    """
    return min((int(row["Bytes"]) for row in rows if row["Volume"] == volume_id), default=None)


def size_on_hosts(command: str, volume_id: str) -> int | None:
    """Ask the operator CLI for the size that guests see of a volume. Raises CommandFailedError."""
    hosts = [str(row["Host"]) for row in _rows(command, "host", "list")]
    sizes = (size_in(_rows(command, "host", "show", host), volume_id) for host in hosts)
    return min((size for size in sizes if size is not None), default=None)


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Look every second until the condition holds; return False where it does not hold in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_EVERY)
    return True


def _filled(pattern: str, names: Mapping[str, str]) -> str:
    for name, value in names.items():
        pattern = pattern.replace(name, value)
    return pattern


def _rows(command: str, *arguments: str) -> Sequence[Mapping[str, Any]]:
    words = [*shlex.split(command), *arguments, "-f", "json"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=_COMMAND_SECONDS)
        rows: Sequence[Mapping[str, Any]] = json.loads(done.stdout)
    except subprocess.CalledProcessError as ex:
        raise CommandFailedError(f"{shlex.join(words)}: {ex.returncode}: {ex.stderr[-500:]}") from ex
    except (OSError, ValueError, subprocess.TimeoutExpired) as ex:
        raise CommandFailedError(f"{shlex.join(words)}: {ex}") from ex
    return rows
