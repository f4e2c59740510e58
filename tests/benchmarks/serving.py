# SPDX-License-Identifier: Apache-2.0
"""The API as operators run it: a uWSGI worker on SQLite, access log and audit file written, over real HTTP."""

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bridge.core.extend import ExtendKey
from tests.benchmarks.measure import Row, cpu_of, median
from tests.benchmarks.rig import Rig
from tests.benchmarks.workspace import Workspace
from tests.lab.keystone_standin import SERVICE_TOKEN, KeystoneStandIn
from tests.lab.ports import steady_port

_PATH: Final = "/v2.1/os-server-external-events"
_ROUNDS: Final = 5
_UWSGI: Final = Path(sys.executable).with_name("uwsgi")
_SHAPES: Final = ((100, 20_000), (1, 2_400))  # the kernel counts CPU in 10 ms


def rows(workspace: Workspace) -> Iterator[Row]:
    """CPU of the worker per event: open to all, and with a token that is in the cache and the policy."""
    if not _UWSGI.exists():
        workspace.say("uWSGI is not installed: left out")
        return
    bare = {size: _bare(workspace, size, full) for size, full in _SHAPES}
    with KeystoneStandIn() as keystone:
        for auth, api, more, many in (
            ("noauth", "force_noauth = true", "", 150),
            ("Keystone, token cached, policy", "auth_strategy = keystone", keystone.authtoken(), 250),
        ):
            directory = workspace.subdirectory("serving")
            rig = Rig(f"sqlite:///{directory}/journal.sqlite3", directory)
            with _served(directory, api, more) as (port, pid):
                for size, full in _SHAPES:
                    count = workspace.count(full, least=size * 20)
                    costs = [_cost(rig, port, pid, count, size) for _ in range(_ROUNDS)]
                    what = f"{size} events" if size > 1 else "one event"
                    yield Row(
                        what=f"API under uWSGI, {what} per request, {auth}",
                        value=median(costs), budget=many if size > 1 else 2 * bare[size], bare=bare[size],
                        bare_what="uWSGI, falcon, json, one INSERT, commit",
                    )  # fmt: skip
            rig.close()


def _bare(workspace: Workspace, size: int, full: int) -> float:
    """µs of CPU per event of a worker that does the least, on the same kind of database."""
    directory = workspace.subdirectory("bare")
    rig = Rig(f"sqlite:///{directory}/journal.sqlite3", directory)
    with _served(directory, "", "", module="tests.benchmarks.bare_wsgi:application") as (port, pid):
        count = workspace.count(full, least=size * 20)
        cost = median([_cost(rig, port, pid, count, size) for _ in range(_ROUNDS)])
    rig.close()
    return cost


def _cost(rig: Rig, port: int, pid: int, count: int, size: int) -> float:
    """µs of the worker's CPU per event."""
    requests = [_body(rig.arriving(size)) for _ in range(count // size)]
    _send(port, requests[:5])
    before = cpu_of(pid)
    _send(port, requests)
    return (cpu_of(pid) - before) / (len(requests) * size) * 1e6


def _body(keys: Sequence[ExtendKey]) -> bytes:
    events = [{"name": "volume-extended", "server_uuid": k.server_id, "tag": k.volume_id} for k in keys]
    return json.dumps({"events": events}).encode()


def _send(port: int, bodies: Sequence[bytes]) -> None:
    headers = {
        "OpenStack-API-Version": "compute 2.51", "Content-Type": "application/json", "X-Auth-Token": SERVICE_TOKEN,
    }  # fmt: skip
    for body in bodies:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", _PATH, body, headers)
        answer = connection.getresponse()
        said = answer.read()
        assert answer.status == http.HTTPStatus.OK, said[:500]
        connection.close()


@contextmanager
def _served(
    directory: Path, api: str, more: str, *, module: str = "bridge.wsgi:application"
) -> Iterator[tuple[int, int]]:
    """A single worker; its port and process id."""
    port, conf = steady_port(), directory / "extend-bridge.conf"
    conf.write_text(
        f"[DEFAULT]\nlog_file = {directory}/api.log\n[journal]\nconnection = sqlite:///{directory}/journal.sqlite3\n"
        f"[audit]\nfile = {directory}/audit.jsonl\n[api]\nwake_port = 0\nrate_limit = 0\n{api}\n{more}"
    )
    command = [
        str(_UWSGI), "--http-socket", f"127.0.0.1:{port}", "--module", module, "--virtualenv",
        sys.prefix, "--pythonpath", str(Path.cwd()), "--enable-threads", "--need-app", "--disable-logging",
        "--buffer-size", "65535", "--die-on-term", "--env", f"EXTEND_BRIDGE_CONFIG={conf}",
        "--env", f"EXTEND_BRIDGE_BENCH=sqlite:///{directory}/journal.sqlite3",
    ]  # fmt: skip
    with (directory / "uwsgi.log").open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 60
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((directory / "uwsgi.log").read_text(errors="replace")[-2000:])
            time.sleep(0.1)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(30)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
