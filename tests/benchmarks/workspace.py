# SPDX-License-Identifier: Apache-2.0
"""What the benches of a run share: a directory, a broker, databases; each started when the first asks for it."""

import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bridge.core.extend import new_id
from tests.lab.databases import MariaDB, PostgreSQL, Server, have_mariadb, have_postgresql
from tests.lab.rabbitmq import RabbitNode

_SERVERS: Final[dict[str, tuple[Callable[[], bool], type[Server]]]] = {
    "MariaDB": (have_mariadb, MariaDB),
    "PostgreSQL": (have_postgresql, PostgreSQL),
}


class Workspace:
    """`scale` 1 gives the figures of the budgets; less gives them faster, and rougher."""

    def __init__(self, *, scale: float = 1.0) -> None:
        self.scale = scale
        self._stack = ExitStack()
        self._node: RabbitNode | None = None
        self._databases: dict[str, Server] = {}
        self.directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="eb-bench-")))

    def count(self, full: int, *, least: int = 24) -> int:
        """So many items at this scale."""
        return max(least, int(full * self.scale))

    def say(self, text: str) -> None:
        """A line of progress, on standard error."""
        sys.stderr.write(f"  {text}\n")
        sys.stderr.flush()

    def broker(self) -> str:
        """URL of an empty vhost of the run's RabbitMQ."""
        if self._node is None:
            self.say("starting RabbitMQ")
            self._node = self._stack.enter_context(RabbitNode())
        name = f"bench-{new_id()}"
        self._node.ctl("add_vhost", name)
        self._node.ctl("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
        return self._node.url_of(name)

    def databases(self) -> list[tuple[str, str]]:
        """An empty database of each kind that is installed here: its name and its URL."""
        found = [("SQLite", f"sqlite:///{self.directory / f'{new_id()}.sqlite3'}")]
        for name, (have, kind) in _SERVERS.items():
            if name not in self._databases and have():
                self.say(f"starting {name}")
                self._databases[name] = self._stack.enter_context(kind())
        return found + [(name, server.new_url()) for name, server in self._databases.items()]

    def subdirectory(self, name: str) -> Path:
        """A new directory."""
        path = self.directory / f"{name}-{new_id()}"
        path.mkdir()
        return path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
