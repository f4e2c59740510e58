# SPDX-License-Identifier: Apache-2.0
"""An API process of a test's own, and one Keystone for all tests that need it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from bridge.journal import migrate
from bridge.journal.database import Database
from bridge.journal.settings import JournalSettings
from tests.conftest import missing
from tests.lab.keystone import Keystone, keystone_python
from tests.lab.ports import steady_port
from tests.lab.waiting import until

PATH = "/v2.1/os-server-external-events"
V251 = {"OpenStack-API-Version": "compute 2.51"}
EVENT = {
    "name": "volume-extended",
    "server_uuid": "99999999-9999-4999-8999-999999999999",
    "tag": "0e63d806-6fe4-4ffc-99bf-f3dd056574c0",
}


@dataclass(frozen=True)
class Served:
    """A server of the API."""

    url: str
    process: subprocess.Popen[bytes]
    directory: Path

    @property
    def log(self) -> str:
        """What it said."""
        return (self.directory / "server.log").read_text(errors="replace")

    def post(
        self, token: str | None = None, *, path: str = PATH, seconds: float = 120, **headers: str
    ) -> requests.Response:
        """One event of a server nobody knows: 207 is who came in."""
        named = {**V251, **({"X-Auth-Token": token} if token else {}), **headers}
        return requests.post(
            f"{self.url}{path}", json={"events": [EVENT]}, headers=named, timeout=seconds, verify=False
        )


def write_conf(directory: Path, port: int, api: str, more: str = "") -> Path:
    """A configuration file with a journal that has its tables."""
    journal = f"sqlite:///{directory}/journal.sqlite3"
    migrate.upgrade(Database(JournalSettings(connection=journal)))
    conf = directory / "extend-bridge.conf"
    conf.write_text(
        f"[journal]\nconnection = {journal}\n[audit]\nfile = {directory}/audit.jsonl\n"
        f"[api]\nbind_port = {port}\nwake_port = 0\n{api}\n{more}\n"
    )
    return conf


@contextmanager
def serving(
    directory: Path, command: list[str], port: int, *, tls: bool = False, answers: int = 200, **environ: str
) -> Iterator[Served]:
    """Run a server of the API until it answers; ended by SIGTERM."""
    with (directory / "server.log").open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, **environ}
        )
    served = Served(f"{'https' if tls else 'http'}://127.0.0.1:{port}", process, directory)
    try:
        until(lambda: _answers(served, answers), f"the API answers:\n{served.log[-2000:]}")
        yield served
    finally:
        process.terminate()
        try:
            process.wait(120)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def built_in(directory: Path, api: str, more: str = "", *, tls: bool = False) -> Iterator[Served]:
    """extend-bridge-api with these lines in [api]."""
    port = steady_port()
    conf = write_conf(directory, port, api, more)
    command = [sys.executable, "-m", "bridge.cmd.api", "--config-file", str(conf)]
    with serving(directory, command, port, tls=tls) as served:
        yield served


def _answers(served: Served, status: int) -> bool:
    if served.process.poll() is not None:
        raise AssertionError(f"the API ended with {served.process.returncode}:\n{served.log[-2000:]}")
    try:
        return requests.get(served.url, timeout=120, verify=False).status_code == status
    except requests.RequestException:
        time.sleep(0.05)
        return False


@pytest.fixture(scope="session")
def keystone() -> Iterator[Keystone]:
    """A real one. Shared: a test that stops it starts it again before it ends."""
    try:
        keystone_python()
    except RuntimeError as ex:
        missing(f"Keystone ({ex})")
    with Keystone() as server:
        yield server
