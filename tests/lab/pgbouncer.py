# SPDX-License-Identifier: Apache-2.0
"""A PgBouncer of a test's own before a PostgreSQL of the lab: transaction mode, loopback, stopped by pid."""

import os
import re
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import sqlalchemy as sa

from tests.lab.databases import PostgreSQL
from tests.lab.ports import steady_port
from tests.lab.process import ServerProcess

_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"

_CONFIGURATION = """[databases]
* = host=127.0.0.1 port={server} user=eb
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
auth_type = any
pool_mode = transaction
default_pool_size = {pool}
max_client_conn = 200
logfile = {directory}/log
unix_socket_dir =
"""


def have_pgbouncer() -> bool:
    """Tell whether it is installed."""
    return shutil.which("pgbouncer", path=_PATH) is not None


class PgBouncer:
    """Shares `pool` connections of the server among all clients of a database."""

    def __init__(self, server: PostgreSQL, *, pool: int) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="eb-pgb-"))
        self.port = steady_port()
        text = _CONFIGURATION.format(server=server.port, port=self.port, pool=pool, directory=self.directory)
        (self.directory / "ini").write_text(text)
        self._process = ServerProcess("PgBouncer", self.directory / "output")

    def url(self, url: str) -> str:
        """Return the URL of a database of the server, through this pooler."""
        return re.sub(r":\d+/", f":{self.port}/", url, count=1)

    def start(self, url: str) -> None:
        """Start it and wait until the database of `url` answers through it."""
        command = [str(shutil.which("pgbouncer", path=_PATH)), str(self.directory / "ini")]
        if os.geteuid() == 0:  # it refuses to run as root
            self.directory.chmod(0o755)
            for path in (self.directory, self.directory / "ini"):
                shutil.chown(path, "postgres")
            command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--", *command]
        engine = sa.create_engine(self.url(url), connect_args={"prepare_threshold": None})

        def answers() -> bool:
            try:
                with engine.connect():
                    return True
            except sa.exc.SQLAlchemyError:
                return False

        self._process.start(command, answers=answers)
        engine.dispose()

    def stop(self) -> None:
        """End it at once, as a restart does: its clients' connections break."""
        self._process.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.stop()
        shutil.rmtree(self.directory, ignore_errors=True)
