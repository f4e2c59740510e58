# SPDX-License-Identifier: Apache-2.0
"""os-brick's file lock, looked at from outside: who holds it, and may everybody who needs it open it.

os-brick lets one extend of SCSI and NVMe-oF at a time pass on a host, ours and nova-compute's alike
(os_brick/initiator/connectors/base.py: synchronized), and waits for that lock without a limit and without a word.
"""

import fcntl
import os
import pwd
import stat
import struct
from pathlib import Path
from typing import Final

LOCK_FILE: Final = "os-brick-extend_volume"
PROTOCOLS: Final = frozenset({"ISCSI", "ISER", "FIBRE_CHANNEL", "NVMEOF"})
"""The connectors whose extend_volume takes the lock."""

_FLOCK: Final = "hhqqi0q"  # struct flock of 64-bit Linux: type, whence, start, length, pid
_MODE: Final = 0o660


def holder(lock_path: str) -> int | None:
    """Pid of the process that holds the lock, None: nobody. 0: a process that cannot be seen from this container.

    Only asks. The file is not made, and the lock of nobody is let go: closing a file of one's own lock would do
    that, but this process never has it.
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
    """The process in words: its pid and its command, without arguments."""
    if pid == 0:
        return "a process outside of this container"
    try:
        return f"process {pid} ({Path(f'/proc/{pid}/comm').read_text().strip()})"
    except OSError:
        return f"process {pid}"


def trouble(lock_path: str) -> str | None:
    """What is wrong with a lock directory that is shared, in words to act on; None: nothing.

    os-brick opens the file to append to it, with the umask of whoever comes first. Where the directory is
    somebody else's (nova-compute's) and this is root, the file is therefore made here, as the directory's owner's:
    made by root's first extend it would shut nova-compute out of its own.
    """
    directory, file = Path(lock_path), Path(lock_path) / LOCK_FILE
    if not directory.is_dir():
        return f"{directory} is no directory"
    if not os.access(directory, os.W_OK | os.X_OK):
        return f"{directory} cannot be written by this user"
    owner = directory.stat()
    if owner.st_uid != os.geteuid() and os.geteuid() == 0:
        _make_for(owner, file)
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    if not os.access(file, os.R_OK | os.W_OK):
        return f"{file} cannot be opened by this user, it belongs to {_user(found.st_uid)}"
    if not _may_write(owner, found):
        return (
            f"{file} belongs to {_user(found.st_uid)} with mode {stat.S_IMODE(found.st_mode):04o}, which shuts out "
            f"{_user(owner.st_uid)}, the owner of the directory: chown it"
        )
    return None


def _make_for(owner: os.stat_result, file: Path) -> None:
    try:
        made = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
    except FileExistsError:
        return
    os.fchmod(made, _MODE)
    os.fchown(made, owner.st_uid, owner.st_gid)
    os.close(made)


def _may_write(user: os.stat_result, file: os.stat_result) -> bool:
    """Whether the directory's owner can open the file; by its group only where the directory has that group."""
    if user.st_uid in {0, file.st_uid}:
        return True
    by_group = file.st_mode & stat.S_IWGRP and file.st_gid == user.st_gid
    return bool(by_group or file.st_mode & stat.S_IWOTH)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
