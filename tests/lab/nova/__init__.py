# SPDX-License-Identifier: Apache-2.0
"""A real Nova API of one's own: from PyPI in a virtualenv of its own, SQLite, uWSGI, on loopback, stopped by pid.

Nothing of Nova is replaced but the token check in front of it: a table of the lab's tokens, so that no Keystone is
needed. It has the servers of tests/fixtures/nova34/rows.json, no nova-compute and no broker (casts go to `fake://`).
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import requests

from tests.lab.ports import steady_port
from tests.lab.process import ServerProcess
from tests.lab.venvs import own_python

REQUIREMENTS: Final = ("nova==34.0.0", "uwsgi==2.0.31", "setuptools<82")
PROJECTS: Final = {"<admin>": "89a3d909ccda438da2cab32ecf0e57cd", "<service>": "b" * 32, "<demo>": "c" * 32}
"""Of its tokens (tokens.py); the first as in the recordings."""
_HERE: Final = Path(__file__).parent


class RealNova:
    """The server. `rows` are its servers: uuid, host, key; those with `shown` true can be looked at one by one, for
    which Nova asks a Neutron, at `neutron`."""

    def __init__(self, rows: Iterable[Mapping[str, Any]], *, neutron: str | None = None) -> None:
        self._neutron = neutron
        self._python = own_python("nova", REQUIREMENTS)
        self.directory = Path(tempfile.mkdtemp(prefix="eb-nova-"))
        self.port = steady_port()
        self._process = ServerProcess("Nova", self.directory / "uwsgi.log")
        self._environment = dict(
            os.environ,
            OS_NOVA_DISABLE_EVENTLET_PATCHING="1",
            OS_NOVA_CONFIG_DIR=str(self.directory),
            OS_NOVA_CONFIG_FILES="api-paste.ini;nova.conf",
            PYTHONPATH=str(_HERE),
        )
        self._configure()
        (self.directory / "rows.json").write_text(json.dumps(list(rows)))
        self._set_up()

    def __enter__(self) -> Self:
        command = [
            str(self._python.parent / "uwsgi"), "--http-socket", f"127.0.0.1:{self.port}",
            "--module", "nova.wsgi.osapi_compute:application", "--processes", "1", "--threads", "2",
            "--enable-threads", "--lazy-apps", "--buffer-size", "65535", "--die-on-term",
        ]  # fmt: skip
        try:
            self._process.start(
                command, answers=self._answers, environment=self._environment, directory=self.directory
            )
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop it and remove its directory."""
        self._process.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _configure(self) -> None:
        shipped = self._python.parent.parent / "etc" / "nova" / "api-paste.ini"
        keystone = "keystonemiddleware.auth_token:filter_factory"
        (self.directory / "api-paste.ini").write_text(
            shipped.read_text().replace(keystone, "tokens:filter_factory")
        )
        (self.directory / "nova.conf").write_text(
            f"[DEFAULT]\ntransport_url = fake://\nstate_path = {self.directory}\n"
            f"log_file = {self.directory}/nova.log\n"
            f"[api_database]\nconnection = sqlite:///{self.directory}/api.sqlite3\n"
            f"[database]\nconnection = sqlite:///{self.directory}/cell0.sqlite3\n"
            f"[oslo_concurrency]\nlock_path = {self.directory}\n"
            f"[wsgi]\napi_paste_config = {self.directory}/api-paste.ini\n"
            + (f"[neutron]\nauth_type = none\nendpoint_override = {self._neutron}\n" if self._neutron else "")
        )

    def _set_up(self) -> None:
        """The tables of the API and of two cells, and the servers."""
        cell = f"sqlite:///{self.directory}/cell1.sqlite3"
        self._manage("api_db", "sync")
        self._manage("db", "sync", "--local_cell")
        shutil.copy(self.directory / "cell0.sqlite3", self.directory / "cell1.sqlite3")
        self._manage("cell_v2", "map_cell0", "--database_connection", f"sqlite:///{self.directory}/cell0.sqlite3")
        self._manage(
            "cell_v2", "create_cell", "--name", "cell1", "--database_connection", cell, "--transport-url", "fake://"
        )
        self._run(str(self._python), str(_HERE / "servers.py"), PROJECTS["<admin>"])

    def _manage(self, *arguments: str) -> None:
        self._run(str(self._python.parent / "nova-manage"), "--config-file", "nova.conf", *arguments)

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            command, cwd=self.directory, env=self._environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(
                f"Nova cannot be set up: {' '.join(command[1:4])}\n{(done.stdout + done.stderr)[-2000:]}"
            )

    def _answers(self) -> bool:
        try:
            return requests.get(f"http://127.0.0.1:{self.port}/", timeout=120).ok
        except requests.RequestException:
            return False
