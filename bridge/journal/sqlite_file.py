# SPDX-License-Identifier: Apache-2.0
"""The file of an SQLite journal: its mode is independent of the umask, and its path is not a link."""

import os
import sqlite3
import stat
from contextlib import suppress
from typing import Any, Final

import sqlalchemy as sa

_MODE: Final = 0o640
_OTHERS: Final = 0o007
_BESIDE: Final = ("-wal", "-shm", "-journal")


def listen_for_file(engine: sa.Engine, url: sa.URL) -> None:
    """Prepare the file before each connection; SQLite gives the files beside it the same mode."""
    name = url.database
    if name and not name.startswith((":memory:", "file:")):

        def before(_dialect: Any, _record: Any, _args: Any, _params: Any) -> None:
            prepare(name)

        sa.event.listen(engine, "do_connect", before)


def prepare(name: str) -> None:
    """Make the file, or take other users' rights from it. Raises sqlite3.OperationalError for a link."""
    for path in (name, *(f"{name}{end}" for end in _BESIDE)):
        with suppress(FileNotFoundError):
            found = os.lstat(path)
            if stat.S_ISLNK(found.st_mode):
                raise sqlite3.OperationalError(f"{path} is a symbolic link; name the file itself")
            if found.st_mode & _OTHERS and found.st_uid == os.geteuid():
                _change(path, stat.S_IMODE(found.st_mode) & ~_OTHERS)
    try:
        made = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
    except OSError:
        return  # the file exists already, or SQLite gives the reason
    os.fchmod(made, _MODE)
    os.close(made)


def _change(path: str, mode: int) -> None:
    """Change the mode by name: closing a descriptor of the file would drop SQLite's locks on it."""
    with suppress(OSError):
        os.chmod(path, mode)  # noqa: PTH101 - a link was refused just before
