# SPDX-License-Identifier: Apache-2.0
"""os-brick's file lock, seen from outside: its holder, and the rights of each process that needs it.

os-brick makes one extend of SCSI and NVMe-oF at a time on a host, for the agent and nova-compute together
(os_brick/initiator/connectors/base.py: synchronized). It waits for that lock without a limit and without a log
line.
"""

import fcntl
import os
import pwd
import stat
import struct
from pathlib import Path
from typing import Final

from bridge.core.errors import ConfigError

LOCK_FILE: Final = "os-brick-extend_volume"
PROTOCOLS: Final = frozenset({"ISCSI", "ISER", "FIBRE_CHANNEL", "NVMEOF"})
"""The connectors whose extend_volume takes the lock."""

_FLOCK: Final = "hhqqi0q"  # struct flock of 64-bit Linux: type, whence, start, length, pid
_MODE: Final = 0o660


def holder(lock_path: str) -> int | None:
    """Return the pid of the process that holds the lock, None without one, 0 for one outside of this container.

    The file is not created. Closing it releases no lock, because this process never holds one.
    """
    try:
        file = os.open(Path(lock_path) / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _whence, _start, _length, pid = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, asked))
    except OSError:
        return None
    finally:
        os.close(file)
    return None if kind == fcntl.F_UNLCK else max(int(pid), 0)


def name_of(pid: int) -> str:
    """Return the process in words: its pid and its command, without arguments."""
    if pid == 0:
        return "a process outside of this container"
    try:
        return f"process {pid} ({Path(f'/proc/{pid}/comm').read_text().strip()})"
    except OSError:
        return f"process {pid}"


def prepare(lock_path: str, *, own: bool) -> None:
    """Prepare a directory for os-brick's lock; raises ConfigError.

    A directory of our own is created. A named one must be there: created with our owner and mode it could shut
    nova-compute out of its own locks. If it belongs to another user (nova-compute's) and the agent is root, the
    agent creates the lock file for that user. Otherwise root's first extend would create it for root.
    """
    directory = Path(lock_path)
    if own:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as ex:
            raise ConfigError(f"[hostagent] state_path: {directory} cannot be created: {ex.strerror}") from ex
        return
    wrong = trouble(lock_path)
    if wrong is None and os.geteuid() == 0 and directory.stat().st_uid != 0:
        _make_for(directory.stat(), directory / LOCK_FILE)
        wrong = trouble(lock_path)
    if wrong is not None:
        raise ConfigError(f"[hostagent] lock_path: {wrong}")


def trouble(lock_path: str) -> str | None:
    """Return the fault of a shared lock directory and its remedy; None without a fault. Changes nothing."""
    directory, file = Path(lock_path), Path(lock_path) / LOCK_FILE
    if not directory.is_dir():
        return f"{directory} is not a directory"
    if not os.access(directory, os.W_OK | os.X_OK):
        return f"{directory} cannot be written by this user"
    owner = directory.stat()
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    if not os.access(file, os.R_OK | os.W_OK):
        return f"{file} cannot be opened by this user, it belongs to {_user(status.st_uid)}"
    if not _may_write(owner, status):
        return (
            f"{file} belongs to {_user(status.st_uid)} with mode {stat.S_IMODE(status.st_mode):04o}, which shuts "
            f"out {_user(owner.st_uid)}, the owner of the directory: chown it"
        )
    return None


def _make_for(owner: os.stat_result, file: Path) -> None:
    try:
        lock_file = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
    except FileExistsError:
        return
    os.fchmod(lock_file, _MODE)
    os.fchown(lock_file, owner.st_uid, owner.st_gid)
    os.close(lock_file)


def _may_write(user: os.stat_result, file: os.stat_result) -> bool:
    """Return whether the directory's owner can open the file; by group only where the directory has that group."""
    if user.st_uid in {0, file.st_uid}:
        return True
    by_group = file.st_mode & stat.S_IWGRP and file.st_gid == user.st_gid
    return bool(by_group or file.st_mode & stat.S_IWOTH)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
