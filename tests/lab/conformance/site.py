# SPDX-License-Identifier: Apache-2.0
"""The API under test: its process, its journal, its port."""

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from bridge.journal.accept import open_journal
from bridge.journal.settings import JournalSettings
from tests.lab.conformance import inventory
from tests.lab.paths import ROOT
from tests.lab.ports import steady_port

TOKENS: Final = "EXTEND_BRIDGE_TEST_TOKENS"
"""Environment variable of the process: a JSON object, token → {"project_id", "roles"}."""
_SERVER: Final = "tests.lab.conformance.server"
_PATIENCE: Final = 30.0


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
        self._process: subprocess.Popen[bytes] | None = None
        self._audit = directory / "audit.jsonl"

    @property
    def pid(self) -> int:
        """Of the API's process."""
        assert self._process is not None
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
        self._process = subprocess.Popen(
            [sys.executable, "-m", _SERVER, *arguments],
            cwd=ROOT,
            env=dict(os.environ, **{TOKENS: json.dumps(self._tokens)}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self._wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        if process is not None:
            process.terminate()
            try:
                process.communicate(timeout=_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()

    def _wait(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not self._ready():
            process = self._process
            assert process is not None
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                said = process.communicate()[1].decode(errors="replace")
                log = self.log.read_text(errors="replace") if self.log.exists() else ""
                raise SiteError(f"the API did not come up:\n{said[-2000:]}{log[-2000:]}")
            time.sleep(0.05)

    def _ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._ops_port, timeout=5)
        try:
            connection.request("GET", "/healthz/ready")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()
