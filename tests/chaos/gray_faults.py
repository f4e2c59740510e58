# SPDX-License-Identifier: Apache-2.0
"""Gray faults of servers: what an operator, a neighbour or a full disk does to a broker or a database."""

import os
import sqlite3
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import sqlalchemy as sa

_LOW: Final = "0.000001"
_USUAL: Final = "0.6"
_DISK_KIB: Final = 65_536
_BLOCK: Final = 65_536


@contextmanager
def blocked(ctl: Callable[..., str]) -> Iterator[None]:
    """Put the broker into its memory alarm."""
    ctl("set_vm_memory_high_watermark", _LOW)
    try:
        yield
    finally:
        ctl("set_vm_memory_high_watermark", _USUAL)


@contextmanager
def read_only(url: str) -> Iterator[None]:
    """Have every session of the database refuse writes, as after a failover that left it on a replica."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    mariadb = engine.dialect.name == "mysql"
    turn = "SET GLOBAL read_only = {}" if mariadb else "ALTER SYSTEM SET default_transaction_read_only = {}"

    def put(word: str) -> None:
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT 1" if mariadb else "SET default_transaction_read_only = off")
            connection.exec_driver_sql(turn.format(word))
            if not mariadb:
                connection.exec_driver_sql("SELECT pg_reload_conf()")

    put("ON")
    try:
        yield
    finally:
        put("OFF")
        engine.dispose()


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Hold a lock on the journal that is not let go: a backup, a person with an open transaction."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        assert parsed.database is not None
        journal = sqlite3.connect(parsed.database, timeout=60, isolation_level=None, check_same_thread=False)
        journal.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            journal.execute("ROLLBACK")
            journal.close()
        return
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        if engine.dialect.name == "mysql":
            connection.exec_driver_sql("LOCK TABLES extends WRITE")
        else:
            connection.exec_driver_sql("LOCK TABLE extends IN ACCESS EXCLUSIVE MODE")
        try:
            yield
        finally:
            if engine.dialect.name == "mysql":
                connection.exec_driver_sql("UNLOCK TABLES")
            connection.rollback()
    engine.dispose()


@contextmanager
def full(directory: Path) -> Iterator[None]:
    """Fill the disk that a directory lies on, which must be one of small_disk()."""
    ballast = directory / "ballast"
    try:
        with ballast.open("wb") as file:
            try:
                while True:
                    file.write(b"\0" * _BLOCK)
                    file.flush()
            except OSError:
                pass
    except OSError:
        pass
    try:
        yield
    finally:
        ballast.unlink(missing_ok=True)


@contextmanager
def small_disk(directory: Path) -> Iterator[bool]:
    """Put a disk of 64 MiB on a directory; yields whether that could be done, which takes root."""
    if os.geteuid() != 0:
        yield False
        return
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_KIB}k", "eb-chaos", str(directory)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "-l", str(directory)], capture_output=True, check=False)


def ordinary_user(url: str) -> str:
    """Return the URL with a user that read_only binds: MariaDB lets root write all the same."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "mysql":
        return url
    name = f"eb{uuid.uuid4().hex[:8]}"
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE USER '{name}'@'%%' IDENTIFIED BY 'pw'")
        connection.exec_driver_sql(f"GRANT ALL ON {parsed.database}.* TO '{name}'@'%%'")
    engine.dispose()
    return parsed.set(username=name, password="pw").render_as_string(hide_password=False)
