# SPDX-License-Identifier: Apache-2.0
"""The API under test: its process, its journal, its port."""

import http.client
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from bridge.journal.accept import open_journal
from bridge.journal.settings import JournalSettings
from tests.lab.conformance import inventory
from tests.lab.paths import ROOT
from tests.lab.ports import steady_port
from tests.lab.process import ServerProcess

TOKENS: Final = "EXTEND_BRIDGE_TEST_TOKENS"
"""Environment variable of the process: a JSON object, token → {"project_id", "roles"}."""
_SERVER: Final = "tests.lab.conformance.server"


class SiteError(Exception):
    """The API did not come up; the text has the end of its log."""


class Site:
    """A running API that knows the servers of `rows` and the callers of `tokens`."""

    def __init__(
        self, directory: Path, rows: Mapping[str, Mapping[str, Any]], tokens: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self._rows, self._tokens = rows, tokens
        self._connection = f"sqlite:///{directory / 'journal.sqlite3'}"
        self._conf, self.log = directory / "api.conf", directory / "api.log"
        self.port, self._ops_port = steady_port(), steady_port()
        self._process = ServerProcess("the API", directory / "api.out")
        self._audit = directory / "audit.jsonl"

    @property
    def pid(self) -> int:
        """Of the API's process."""
        assert self._process.pid is not None
        return self._process.pid

    def __enter__(self) -> "Site":
        journal = open_journal(JournalSettings(connection=self._connection))
        inventory.load(journal, self._rows)
        journal.database.dispose()
        self._conf.write_text(
            f"[api]\nbind_port = {self.port}\nops_port = {self._ops_port}\nwake_port = 0\n"
            f"[journal]\nconnection = {self._connection}\n[audit]\nfile = {self._audit}\n"
        )
        arguments = ["--config-file", str(self._conf), "--log-file", str(self.log)]
        try:
            self._process.start(
                [sys.executable, "-m", _SERVER, *arguments],
                answers=self._ready,
                environment=dict(os.environ, **{TOKENS: json.dumps(self._tokens)}),
                directory=ROOT,
            )
        except RuntimeError as ex:
            self._process.stop()
            log = self.log.read_text(errors="replace") if self.log.exists() else ""
            raise SiteError(f"{ex}\n{log[-2000:]}") from ex
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.stop()

    def _ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._ops_port, timeout=120)
        try:
            connection.request("GET", "/healthz/ready")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()
