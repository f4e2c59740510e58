# SPDX-License-Identifier: Apache-2.0
"""bridge.wsgi:application under uWSGI and gunicorn: several processes on one journal and one audit file."""

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import requests

from tests.conftest import missing
from tests.functional.api.conftest import EVENT, PATH, V251, Served, serving, write_conf
from tests.lab.paths import ROOT
from tests.lab.ports import steady_port
from tests.lab.waiting import until

pytestmark = pytest.mark.functional

WORKERS = 3
REQUESTS = 90
BIN = Path(sys.executable).parent


def uwsgi(directory: Path, conf: Path, port: int) -> list[str]:
    """By the sample file, with its addresses made this test's."""
    text = (ROOT / "etc" / "extend-bridge" / "uwsgi.ini").read_text()
    for line, ours in (
        ("virtualenv = /opt/extend-bridge", f"virtualenv = {sys.prefix}\npythonpath = {ROOT}"),
        ("127.0.0.1:8786", f"127.0.0.1:{port}"),
        ("/etc/extend-bridge/extend-bridge.conf", str(conf)),
        ("processes = 4", f"processes = {WORKERS}"),
    ):
        assert line in text
        text = text.replace(line, ours)
    (directory / "uwsgi.ini").write_text(text)
    return [str(BIN / "uwsgi"), "--ini", str(directory / "uwsgi.ini")]


def gunicorn(_directory: Path, _conf: Path, port: int) -> list[str]:
    """By the command of the docs."""
    return [
        str(BIN / "gunicorn"), "--workers", str(WORKERS), "--worker-class", "gthread", "--threads", "4",
        "--bind", f"127.0.0.1:{port}", "--graceful-timeout", "20", "--forwarded-allow-ips", "",
        "bridge.wsgi:application",
    ]  # fmt: skip


Serve = Callable[..., AbstractContextManager[Served]]


@pytest.fixture(params=[uwsgi, gunicorn], ids=["uWSGI", "gunicorn"])
def serve(request: pytest.FixtureRequest, tmp_path: Path) -> Serve:
    """Run the server with these lines in [api]."""
    make: Callable[[Path, Path, int], list[str]] = request.param
    if shutil.which(make.__name__, path=BIN) is None:
        missing(make.__name__, extra="serving")

    def run(api: str, answers: int = 200) -> AbstractContextManager[Served]:
        port = steady_port()
        conf = write_conf(tmp_path, 0, api)
        with sqlite3.connect(tmp_path / "journal.sqlite3") as journal:
            columns = [row[1] for row in journal.execute("pragma table_info(domains)")]
            values = {"server_id": EVENT["server_uuid"], "host": "cmp-1", "state": "active"}
            row = [values.get(column, 0) for column in columns]
            journal.execute(f"insert into domains values ({','.join('?' * len(row))})", row)
        return serving(tmp_path, make(tmp_path, conf, port), port, answers=answers, EXTEND_BRIDGE_CONFIG=str(conf))

    return run


def workers(served: Served) -> set[int]:
    """Who answered, by the process ids of the access log."""
    return {int(pid) for pid in re.findall(r"^\S+ \S+ (\d+) INFO bridge\.api\.access", served.log, re.MULTILINE)}


def send(served: Served) -> int:
    """One extend of a volume of its own; its code."""
    event = {**EVENT, "tag": str(uuid.uuid4())}
    answer = requests.post(
        f"{served.url}{PATH}", json={"events": [event]}, headers={**V251, "Connection": "close"}, timeout=60
    )
    assert answer.status_code == 200, answer.text
    return int(answer.json()["events"][0]["code"])


def test_processes_share_a_journal_and_an_audit_file(serve: Serve) -> None:
    """An event is one row, one whole line and one datagram, whoever took it; a killed process is replaced."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wake:
        wake.bind(("127.0.0.1", 0))
        wake.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        wake.settimeout(10)
        lines = f"force_noauth = true\nrate_limit = 0\nwake_port = {wake.getsockname()[1]}"
        with serve(lines) as served, ThreadPoolExecutor(8) as pool:
            codes = list(pool.map(lambda _: send(served), range(REQUESTS)))
            assert codes == [200] * REQUESTS
            # who is busy is not asked: on a busy machine the first requests may all go to the same two
            until(lambda: send(served) == 200 and len(workers(served)) == WORKERS, "each worker has answered")
            answered = workers(served)
            for _ in range(REQUESTS):
                wake.recv(100)
            os.kill(answered.pop(), signal.SIGKILL)
            until(lambda: send(served) == 200 and len(workers(served)) > WORKERS, "a new worker answers")
            directory = served.directory
            served.process.terminate()
            assert served.process.wait(120) == 0
        assert "Traceback" not in served.log
    accepted = [json.loads(line) for line in (directory / "audit.jsonl").read_text().splitlines()]
    with sqlite3.connect(directory / "journal.sqlite3") as journal:
        volumes = {row[0] for row in journal.execute("select volume_id from extends")}
    assert len(accepted) == len(volumes) >= REQUESTS + 1
    assert {line["volume"] for line in accepted} == volumes


@pytest.mark.parametrize("trusted", ["", "trusted_proxies = 127.0.0.1"], ids=["no proxy", "a proxy"])
def test_forwarding_headers_count_from_listed_proxies_only(serve: Serve, trusted: str) -> None:
    """Whatever the server itself makes of them."""
    said = {
        "X-Forwarded-For": "198.51.100.7",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "compute.example",
        "X-Forwarded-Prefix": "/compute",
        "Forwarded": "for=6.6.6.6;host=evil.example;proto=javascript",
        "X-Script-Name": "/evil",
        "X-Real-IP": "6.6.6.6",
    }
    with serve(f"force_noauth = true\n{trusted}") as served:
        answer = requests.get(f"{served.url}/", headers=said, timeout=60)
        link = answer.json()["versions"][1]["links"][0]["href"]
        assert link == ("https://compute.example/compute/v2.1/" if trusted else f"{served.url}/v2.1/")
        assert requests.get(f"{served.url}/{'a' * 3500}?{'b' * 6000}", timeout=60).status_code in {400, 414}
        lines = [line for line in served.log.splitlines() if "bridge.api.access" in line]
    assert f"from {'198.51.100.7' if trusted else '127.0.0.1'} " in "".join(lines)
    assert "6.6.6.6" not in "".join(lines)


def test_noauth_is_refused_until_it_is_forced(serve: Serve) -> None:
    """Nobody can see from inside where an external server listens: every request is 503, and the log says why."""
    with serve("", 503) as served:
        answer = served.post()
        assert (answer.status_code, list(answer.json())) == (503, ["serviceUnavailable"])
        assert "noauth is refused under an external WSGI server" in served.log
