# SPDX-License-Identifier: Apache-2.0
"""A Galera cluster of MariaDB on loopback: private directories, stopped by pid."""

import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import pymysql
import sqlalchemy as sa

from tests.lab.databases import MariaDB, have_mariadb
from tests.lab.ports import steady_port

_PROVIDER = Path("/usr/lib/galera/libgalera_smm.so")


def have_galera() -> bool:
    """Tell whether MariaDB, Galera and rsync are installed."""
    return have_mariadb() and _PROVIDER.exists() and shutil.which("rsync") is not None


class GaleraNode(MariaDB):
    """One node. `weight` counts in the vote for the primary component."""

    def __init__(self, number: int, *, weight: int) -> None:
        super().__init__()
        self.number = number
        self.cluster_port, self._incremental, self._state = (steady_port() for _ in range(3))
        self.others: Sequence[GaleraNode] = ()
        self._weight = weight

    def run(self, statement: str) -> list[tuple[object, ...]]:
        """Run a statement as root, outside of a transaction; its rows."""
        # not by SQLAlchemy, whose first questions a node outside of the primary component refuses
        with pymysql.connect(host="127.0.0.1", port=self.port, user="root", autocommit=True) as connection:
            cursor = connection.cursor()
            cursor.execute(statement)
            return list(cursor.fetchall())

    def url_of(self, database: str) -> str:
        """Return the URL of a database of the cluster on this node."""
        return self._url(database)

    def status(self, name: str) -> str:
        """Return a status variable."""
        return str(self.run(f"SHOW STATUS LIKE '{name}'")[0][1])

    def isolate(self, on: bool) -> None:
        """Cut the node off from the other nodes, or let it back. MariaDB 11 has a variable for each option."""
        try:
            self.run(f"SET GLOBAL wsrep_provider_options = 'gmcast.isolate={on:d}'")
        except pymysql.err.MySQLError:
            self.run(f"SET GLOBAL wsrep_provider_gmcast_isolate = '{on:d}'")

    def _user(self) -> list[str]:
        """As root: the package's user, because the state transfer does not run as root."""
        if os.geteuid() != 0:
            return []
        self.directory.chmod(0o755)
        shutil.chown(self.directory, "mysql", "mysql")
        return ["--user=mysql"]

    def _answers(self) -> bool:
        try:
            return self.status("wsrep_ready") == "ON"
        except pymysql.err.MySQLError:
            return False

    def _command(self) -> Sequence[str]:
        peers = ",".join(f"127.0.0.1:{node.cluster_port}" for node in self.others)
        options = (
            f"base_port={self.cluster_port};gmcast.listen_addr=tcp://127.0.0.1:{self.cluster_port};"
            f"ist.recv_addr=127.0.0.1:{self._incremental};pc.weight={self._weight};gcache.size=32M;"
            "evs.suspect_timeout=PT3S;evs.inactive_timeout=PT6S"
        )
        return [
            *(part for part in super()._command() if part != "--skip-log-bin"),
            "--binlog-format=ROW", "--default-storage-engine=InnoDB", "--innodb-autoinc-lock-mode=2",
            "--innodb-flush-log-at-trx-commit=0", "--wsrep-on=ON", f"--wsrep-provider={_PROVIDER}",
            "--wsrep-cluster-name=eb", f"--wsrep-cluster-address=gcomm://{peers}",
            f"--wsrep-node-address=127.0.0.1:{self.cluster_port}", f"--wsrep-node-name=n{self.number}",
            "--loose-plugin-wsrep-provider=OFF",  # since 11, it makes the options unchangeable at run time
            f"--wsrep-provider-options={options}", f"--wsrep-sst-receive-address=127.0.0.1:{self._state}",
            "--wsrep-sst-method=rsync", "--wsrep-slave-threads=2",
        ]  # fmt: skip


class Galera:
    """A cluster; the last node outweighs the others together, so it stays primary when it is alone."""

    def __init__(self, size: int) -> None:
        self.nodes = [GaleraNode(i, weight=size if i == size - 1 else 1) for i in range(size)]
        self._stack = ExitStack()

    def new_database(self) -> str:
        """Create an empty database; its name."""
        url = sa.make_url(self.nodes[0].new_url())
        return str(url.database)

    def __enter__(self) -> Self:
        started: list[GaleraNode] = []
        try:
            for node in self.nodes:
                node.others = list(started)
                self._stack.enter_context(node)
                started.append(node)
        except BaseException:
            self._stack.close()
            raise
        for node in self.nodes:
            node.others = [other for other in self.nodes if other is not node]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
