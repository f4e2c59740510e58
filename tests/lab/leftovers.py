# SPDX-License-Identifier: Apache-2.0
"""The guard of a run: it ends the processes and removes the temporary files that a dead run has left.

Standard library only. A run is one pytest or one tool. Its processes carry the run's directory in their environment
or in their command line, and its temporary files are in that directory. The guard is a process of its own: a run
that is killed is cleaned up like a run that ends.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Final

RUN: Final = "EXTEND_BRIDGE_RUN"
"""The environment variable with the run's directory."""
OUTSIDE: Final = "EXTEND_BRIDGE_OUTSIDE"
"""The environment variable with the directory for what a tool keeps after its run."""
TIMES: Final = "EXTEND_BRIDGE_TIMES"
"""The environment variable with the file where each test that ends is written to, with its seconds."""
KEEP: Final = "EXTEND_BRIDGE_KEEP"
"""The environment variable that keeps the run's directory, for looking at the logs of a failed test."""
_TRACKER: Final = b"multiprocessing.resource_tracker"
"""Python's own helper, which ends with its parent; from Python 3.14 on a progress bar starts one."""
_ROUNDS: Final = 200
_BETWEEN: Final = 0.05  # seconds
_EMPTY_ROUNDS: Final = 3  # rounds without a process: a process that was just forked is seen in the next round


def guarded(environment: MutableMapping[str, str]) -> bool:
    """Put this process under a guard and point `environment` to the run's directory; False inside another run."""
    if RUN in environment:
        return False
    directory = Path(tempfile.mkdtemp(prefix="eb-"))
    directory.chmod(0o755)  # some servers run as users of their own
    environment.update({RUN: str(directory), "TMPDIR": str(directory)})
    subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(directory)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True, cwd="/",
        env={name: value for name, value in environment.items() if name not in {RUN, "TMPDIR"}},
    )  # fmt: skip
    return True


def of_run(directory: Path) -> dict[int, str]:
    """Return the living processes of a run, pid to command line, without this process and its ancestors."""
    token, path = f"{RUN}={directory}\0".encode(), f"{directory}/".encode()
    commands: dict[int, str] = {}
    parents: dict[int, int] = {}
    marked: set[int] = set()
    for pid in _pids():
        with suppress(OSError):  # it has ended meanwhile
            state, parent = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(") ")[2].split()[:2]
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            parents[pid] = int(parent)
            if state in "ZX" or not command or _TRACKER in command:
                continue
            commands[pid] = command.replace(b"\0", b" ").decode(errors="replace").strip()
            if path in command or token in Path(f"/proc/{pid}/environ").read_bytes():
                marked.add(pid)
    excluded = set(_line(os.getpid(), parents))
    return {
        pid: command
        for pid, command in sorted(commands.items())
        if pid not in excluded and not marked.isdisjoint(_line(pid, parents))
    }


def _line(pid: int, parents: dict[int, int]) -> list[int]:
    """Return a process and its ancestors, without the first process of the machine."""
    line = []
    while pid > 1:
        line.append(pid)
        pid = parents.get(pid, 0)
    return line


def end_run(directory: Path) -> None:
    """Kill every process of a run, then remove its directory."""
    empty = 0
    for _ in range(_ROUNDS):
        living = of_run(directory)
        empty = 0 if living else empty + 1
        if empty >= _EMPTY_ROUNDS:
            break
        for pid in living:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_BETWEEN)
    if not os.environ.get(KEEP):
        _unmount(directory)
        shutil.rmtree(directory, ignore_errors=True)


def _pids() -> Iterator[int]:
    for name in os.listdir("/proc"):  # noqa: PTH208 - a pathlib object per process is dear
        if name.isdigit():
            yield int(name)


def _unmount(directory: Path) -> None:
    """Unmount what a run has mounted below its directory: removing files must not go through a mount."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text(errors="replace").splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(f"{directory}/")), reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)


def main(pid: int, directory: Path) -> None:
    """Wait for the end of the process `pid`, then end its run."""
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        waiting = select.poll()
        waiting.register(handle, select.POLLIN)
        waiting.poll()
    end_run(directory)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the guard is the last to go
    main(int(sys.argv[1]), Path(sys.argv[2]))
