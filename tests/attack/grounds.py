# SPDX-License-Identifier: Apache-2.0
"""The API's grounds: extend-bridge-api with each way to authenticate; its Keystone is behind a faulty proxy."""

import base64
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import bcrypt

from tests.lab.keystone_standin import SERVICE_TOKEN, KeystoneStandIn
from tests.lab.ports import steady_port
from tests.lab.proxy import Proxy
from tests.lab.waiting import until

PATH: Final = "/v2.1/os-server-external-events"
BODY: Final = json.dumps(
    {
        "events": [
            {
                "name": "volume-extended",
                "server_uuid": "99999999-9999-4999-8999-999999999999",
                "tag": "0e63d806-6fe4-4ffc-99bf-f3dd056574c0",
            }
        ]
    }
).encode()
BUDGET: Final = 100
"""MiB of an API process, by the budgets of the design."""
_GROWTH: Final = 16
"""MiB by which a process may grow above that: the client of Keystone is larger than the budget from the start."""
FAILURE_LIMIT: Final = 5
FAILURE_BURST: Final = 20
_COST: Final = 10


class ApiGround:
    """A running API and a caller that it remembers; `proxy` stands before its Keystone where it has one."""

    def __init__(
        self,
        port: int,
        process: subprocess.Popen[bytes],
        log: Path,
        credentials: dict[str, str],
        proxy: Proxy | None = None,
    ) -> None:
        self.port = port
        self.process = process
        self.log = log
        self.credentials = credentials
        self.proxy = proxy
        self.memory_before = 0

    def call(self) -> None:
        """Post an event, and ask for the health: over a kept connection and over new ones in turn."""
        answer = self._ask("POST", PATH, BODY)
        assert answer == 207, f"the good caller was answered {answer}"
        answer = self._ask("GET", "/healthcheck", None)
        assert answer == 200, f"/healthcheck was answered {answer}"

    def complaints(self) -> Sequence[str]:
        """Look for the end of the process, its memory and tracebacks in its log."""
        found = []
        if self.process.poll() is not None:
            found.append(f"the API ended with {self.process.returncode}")
        elif (used := self.memory()) > max(BUDGET, self.memory_before + _GROWTH):
            found.append(f"the API keeps {used} MiB afterwards, {self.memory_before} before")
        if "Traceback" in self.log.read_text(errors="replace"):
            found.append(f"a traceback is in {self.log}")
        return found

    def memory(self) -> int:
        """Return MiB in use by the process, 0 after its end."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next((int(line.split()[1]) >> 10 for line in status.splitlines() if line.startswith("VmRSS")), 0)

    @property
    def authorization(self) -> str:
        """The good caller's credentials as header lines."""
        return "".join(f"{name}: {value}\r\n" for name, value in self.credentials.items())

    def _ask(self, method: str, path: str, body: bytes | None) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {
            "OpenStack-API-Version": "compute 2.51",
            "Content-Type": "application/json",
            "Connection": "close",
            **self.credentials,
        }
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()


@contextmanager
def serving(
    directory: Path, api: str, more: str = "", *, credentials: dict[str, str], proxy: Proxy | None = None
) -> Iterator[ApiGround]:
    """Run extend-bridge-api with these lines in [api] until the end of the block."""
    port, log = steady_port(), directory / "api.log"
    conf = directory / "api.conf"
    conf.write_text(
        f"[journal]\nconnection = sqlite:///{directory}/journal.sqlite3\nsync_on_startup = true\n"
        f"[audit]\nfile = {directory}/audit.jsonl\n"
        f"[api]\nbind_port = {port}\nops_port = {steady_port()}\nwake_port = 0\nrate_limit = 0\n{api}\n{more}\n"
    )
    command = [sys.executable, "-m", "bridge.cmd.api", "--config-file", str(conf)]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ}
        )
    ground = ApiGround(port, process, log, credentials, proxy)

    def answers() -> bool:
        if process.poll() is not None:
            raise AssertionError(f"the API ended with {process.returncode}:\n{log.read_text()[-2000:]}")
        try:
            ground.call()
        except (OSError, AssertionError, http.client.HTTPException):
            time.sleep(0.1)
            return False
        return True

    try:
        until(answers, "the API answers its good caller")
        ground.memory_before = ground.memory()
        yield ground
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def basic(directory: Path) -> Iterator[ApiGround]:
    """Run an API with a file of users, behind a proxy on this machine that sets X-Forwarded-For."""
    users = directory / "htpasswd"
    users.write_text("cinder:" + bcrypt.hashpw(b"good-word", bcrypt.gensalt(_COST)).decode() + "\n")
    users.chmod(0o600)
    pair = base64.b64encode(b"cinder:good-word").decode()
    lines = (
        f"auth_strategy = http_basic\nhttp_basic_auth_user_file = {users}\ntrusted_proxies = 127.0.0.1\n"
        f"failure_limit = {FAILURE_LIMIT}\nfailure_burst = {FAILURE_BURST}"
    )
    with serving(directory, lines, credentials={"Authorization": f"Basic {pair}"}) as ground:
        yield ground


@contextmanager
def keystone(directory: Path) -> Iterator[ApiGround]:
    """Run an API whose Keystone can be frozen and made to drip."""
    with KeystoneStandIn() as standin, Proxy(int(standin.url.split(":")[2].split("/")[0])) as proxy:
        standin.strict = True
        standin.reached_at(proxy.url(standin.url))
        with serving(
            directory,
            "auth_strategy = keystone\nfailure_limit = 0",
            standin.authtoken(),
            credentials={"X-Auth-Token": SERVICE_TOKEN},
            proxy=proxy,
        ) as ground:
            yield ground


@contextmanager
def noauth(directory: Path) -> Iterator[ApiGround]:
    """Run an API on loopback that asks for no credentials."""
    with serving(directory, "auth_strategy = noauth", credentials={}) as ground:
        yield ground
