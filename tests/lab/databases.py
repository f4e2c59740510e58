# SPDX-License-Identifier: Apache-2.0
"""A MariaDB and a PostgreSQL of one's own: private directory, loopback or a socket, stopped by pid.

Neither touches what Debian's packages set up under /etc and /var/lib.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import uuid
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import sqlalchemy as sa

from tests.lab.ports import steady_port
from tests.lab.process import InBlock, ServerProcess
from tests.lab.waiting import until


def have_mariadb() -> bool:
    """Whether the server is installed."""
    return shutil.which("mariadbd", path=_path()) is not None


def have_postgresql() -> bool:
    """Whether the server is installed."""
    return _postgres_bin() is not None


class Server(InBlock):
    """A database server. `new_url()` makes an empty database and gives its SQLAlchemy URL."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="eb-db-"))
        self.port = steady_port()
        self._process = ServerProcess("the database", self.log)

    def start(self) -> Self:
        """Start and wait until it answers; raises RuntimeError with the end of its log."""
        self._process.start(self._command(), answers=self._answers)
        return self

    def stop(self) -> None:
        """As an operator does."""
        self._process.stop(self._stop_signal)

    def kill(self) -> None:
        """As a power cut does."""
        self._process.stop(signal.SIGKILL)

    def close(self) -> None:
        """Stop it and remove its directory."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def new_url(self) -> str:
        """An empty database."""
        name = f"eb_{uuid.uuid4().hex[:12]}"
        engine = sa.create_engine(self._url(self._first), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}{self._create_options}")
        engine.dispose()
        return self._url(name)

    @property
    def pid(self) -> int | None:
        """The pid of the server's process group, None while it is down."""
        return self._process.pid

    @property
    def log(self) -> Path:
        """What it said."""
        return self.directory / "server.log"

    _stop_signal = signal.SIGTERM
    _first: str
    _create_options = ""

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """What starts it."""

    @abstractmethod
    def _url(self, database: str) -> str:
        """SQLAlchemy URL of a database."""

    def _answers(self) -> bool:
        engine = sa.create_engine(self._url(self._first))
        try:
            with engine.connect():
                return True
        except sa.exc.SQLAlchemyError:
            return False
        finally:
            engine.dispose()


class MariaDB(Server):
    """MariaDB, user root without a password, over its socket and loopback."""

    _first = "mysql"
    _create_options = " CHARACTER SET utf8mb4"

    def __init__(self) -> None:
        super().__init__()
        self._data = self.directory / "data"
        subprocess.run(
            ["mariadb-install-db", "--no-defaults", f"--datadir={self._data}", *self._user(), "--skip-test-db",
             f"--tmpdir={self.directory}",
             "--auth-root-authentication-method=normal"],
            check=True, capture_output=True, env={**os.environ, "PATH": _path()},
        )  # fmt: skip

    def _command(self) -> Sequence[str]:
        server = shutil.which("mariadbd", path=_path())
        return [
            str(server), "--no-defaults", f"--datadir={self._data}", *self._user(),
            f"--tmpdir={self.directory}", f"--socket={self.directory}/sock", f"--pid-file={self.directory}/pid",
            "--bind-address=127.0.0.1", f"--port={self.port}", "--innodb-buffer-pool-size=64M",
            "--skip-log-bin", "--max-connections=200",
        ]  # fmt: skip

    def _url(self, database: str) -> str:
        return f"mysql+pymysql://root@127.0.0.1:{self.port}/{database}?charset=utf8mb4"

    def _user(self) -> list[str]:
        return ["--user=root"] if os.geteuid() == 0 else []


class PostgreSQL(Server):
    """PostgreSQL, which refuses to run as root: then as the user its package made."""

    _first = "postgres"
    _stop_signal = signal.SIGINT  # "fast": clients are disconnected

    def __init__(self) -> None:
        super().__init__()
        self._data = self.directory / "data"
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            self.directory.chmod(0o755)
            self._data.mkdir(mode=0o700)
            os.chown(self._data, user.pw_uid, user.pw_gid)
        subprocess.run(
            [*self._as_user(), f"{_postgres_bin()}/initdb", "-D", str(self._data), "-U", "eb", "-A", "trust",
             "-E", "UTF8", "--no-sync"],
            check=True, capture_output=True, cwd="/",
        )  # fmt: skip

    def kill(self) -> None:
        """As a power cut does, once every process of the server is gone: each is in a group of its own."""
        super().kill()
        until(lambda: not _lives_in(self._data), "the server's processes are gone")

    def _command(self) -> Sequence[str]:
        return [
            *self._as_user(), f"{_postgres_bin()}/postgres", "-D", str(self._data), "-h", "127.0.0.1",
            "-p", str(self.port), "-k", "", "-c", "max_connections=200",
        ]  # fmt: skip

    def _url(self, database: str) -> str:
        return f"postgresql+psycopg://eb@127.0.0.1:{self.port}/{database}"

    @staticmethod
    def _as_user() -> list[str]:
        if os.geteuid() != 0:
            return []
        return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--"]


def _lives_in(directory: Path) -> bool:
    """Return whether a process has this working directory."""
    for pid in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            if (pid / "cwd").resolve(strict=True) == directory.resolve():
                return True
    return False


def _postgres_bin() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return found[-1].parent if found else None


def _path() -> str:
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
