# SPDX-License-Identifier: Apache-2.0
"""extend-bridge-api as a process: who it lets in without Keystone, TLS, strangers that are slow, its end."""

import base64
import contextlib
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import requests
import trustme

from tests.functional.api.conftest import EVENT, PATH, V251, Served, built_in, write_conf
from tests.lab.waiting import until

pytestmark = pytest.mark.functional


def test_only_a_good_name_and_password_are_accepted(tmp_path: Path) -> None:
    """And nothing else does; the password is in no log."""
    users = tmp_path / "htpasswd"
    users.write_text("cinder:" + bcrypt.hashpw(b"s3cret-word", bcrypt.gensalt(8)).decode() + "\n")
    users.chmod(0o600)
    with built_in(tmp_path, f"auth_strategy = http_basic\nhttp_basic_auth_user_file = {users}") as api:
        pair = base64.b64encode(b"cinder:s3cret-word").decode()
        assert api.post(Authorization=f"Basic {pair}").status_code == 207
        answer = api.post(Authorization="Basic " + base64.b64encode(b"cinder:wrong").decode())
        assert (answer.status_code, answer.headers["WWW-Authenticate"][:11]) == (401, "Basic realm")
        assert api.post("some-token").status_code == 401
        assert "s3cret-word" not in api.log
        assert pair not in api.log
        assert "user cinder" in api.log


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("bind_host = 0.0.0.0", "auth_strategy=noauth is refused on 0.0.0.0"),
        ("auth_strategy = keystone", "[keystone_authtoken] needs auth_type, auth_url"),
        ("auth_strategy = http_basic\nhttp_basic_auth_user_file = /absent", "/absent cannot be read: No such file"),
        ("auth_strategy = kerberos", "auth_strategy"),
        ("cert_file = /absent.pem", "[api] cert_file, key_file: /absent.pem cannot be used"),
        ("key_file = /absent.pem", "[api] key_file is set, but cert_file is not"),
    ],
)
def test_a_door_that_cannot_be_kept_is_never_opened(tmp_path: Path, lines: str, says: str) -> None:
    """Status 2, and one line that says what to change."""
    conf = write_conf(tmp_path, 0, lines)
    done = subprocess.run(
        [sys.executable, "-m", "bridge.cmd.api", "--config-file", str(conf)],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_new_certificate_is_used_after_sighup(tmp_path: Path) -> None:
    """Without a restart; the daemon goes on."""
    authority = trustme.CA()
    pem = tmp_path / "api.pem"

    def issue(name: str) -> None:
        authority.issue_cert("127.0.0.1", common_name=name).private_key_and_cert_chain_pem.write_to_path(pem)

    def shown(port: int) -> str:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        with (
            socket.create_connection(("127.0.0.1", port), timeout=120) as raw,
            context.wrap_socket(raw, server_hostname="127.0.0.1") as sock,
        ):
            shown: Any = sock.getpeercert()
            return str(dict(pair[0] for pair in shown["subject"])["commonName"])

    issue("first")
    with built_in(tmp_path, f"cert_file = {pem}", tls=True) as api:
        port = int(api.url.rpartition(":")[2])
        assert api.post().status_code == 207
        assert (
            requests.get(api.url, timeout=120, verify=False)
            .json()["versions"][0]["links"][0]["href"]
            .startswith("https://")
        )
        assert shown(port) == "first"
        issue("second")
        api.process.send_signal(signal.SIGHUP)
        until(lambda: shown(port) == "second", "the new certificate is shown")
        assert api.process.poll() is None


def test_slow_strangers_keep_nobody_out(tmp_path: Path) -> None:
    """More of them than threads and connections; they are cut off in time."""
    with built_in(tmp_path, "threads = 2\nmax_connections = 20\nrequest_timeout = 2") as api:
        port = int(api.url.rpartition(":")[2])
        begin = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n{{".encode()
        slow = [socket.create_connection(("127.0.0.1", port), timeout=120) for _ in range(60)]
        for sock in slow:
            with contextlib.suppress(OSError):
                sock.sendall(begin)
        assert {api.post(seconds=10).status_code for _ in range(10)} == {207}
        open_files = Path(f"/proc/{api.process.pid}/fd")
        until(lambda: api.post().status_code == 207 and len(list(open_files.iterdir())) < 40, "they are cut off")
        for sock in slow:
            sock.close()


@pytest.mark.parametrize("size", [114_689, 900_000, 1_500_000])
def test_a_body_that_is_too_large_is_a_json_fault(tmp_path: Path, size: int) -> None:
    """The same for every size, with an id to find it by."""
    with built_in(tmp_path, "") as api:
        answer = requests.post(f"{api.url}{PATH}", data=b" " * size, headers=V251, timeout=120)
        assert answer.status_code == 413
        assert answer.json()["title"] == "Request Entity Too Large"
        assert answer.headers["x-openstack-request-id"].startswith("req-")


def test_what_a_caller_writes_cannot_forge_a_log_line(tmp_path: Path) -> None:
    """Escaped in the path, dropped from the request id; queries are not logged."""
    with built_in(tmp_path, "") as api:
        port = int(api.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=120) as sock:
            sock.sendall(
                b"GET /v2.1/%0d%0aFAKE%20line%1b[31m?token=s3cret HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                b"X-OpenStack-Request-ID: req-FAKE\r\n\r\n"
            )
            assert b" 404 " in sock.recv(1000)
        until(lambda: "FAKE" in api.log, "the request is logged")
        assert not [line for line in api.log.splitlines() if line.startswith("FAKE")]
        assert "\x1b" not in api.log
        assert "s3cret" not in api.log


def test_a_caller_above_its_rate_is_asked_to_wait(tmp_path: Path) -> None:
    """429 with Retry-After; others are not concerned, and it passes."""
    with built_in(tmp_path, "rate_limit = 1\nrate_burst = 3") as api:
        answers = [api.post() for _ in range(5)]
        assert [answer.status_code for answer in answers][:3] == [207] * 3
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert int(refused.headers["Retry-After"]) >= 1
        assert "overLimit" in refused.json()
        assert requests.get(f"{api.url}/healthcheck", timeout=120).status_code == 200
        until(lambda: api.post().status_code == 207, "it passes")


def test_the_healthcheck_follows_the_file_and_the_journal(tmp_path: Path) -> None:
    """For load balancers; no token, no reason told."""
    flag = tmp_path / "drain"
    with built_in(tmp_path, f"healthcheck_disable_file = {flag}") as api:

        def said() -> tuple[int, str]:
            answer = requests.get(f"{api.url}/healthcheck", timeout=120)
            return answer.status_code, answer.text

        assert said() == (200, "OK")
        assert requests.head(f"{api.url}/healthcheck", timeout=120).status_code == 200
        flag.touch()
        assert said() == (503, "DISABLED BY FILE")
        flag.unlink()
        assert said() == (200, "OK")
        with sqlite3.connect(tmp_path / "journal.sqlite3") as journal:
            journal.execute("DROP TABLE alembic_version")
        until(lambda: said() == (503, "JOURNAL UNAVAILABLE"), "the journal is missed")


def test_a_request_being_answered_when_it_stops_is_answered(tmp_path: Path) -> None:
    """Its journal is locked by somebody else until after SIGTERM; the answer comes, then the end with 0."""
    with built_in(tmp_path, "") as api, ThreadPoolExecutor() as pool:
        with sqlite3.connect(tmp_path / "journal.sqlite3", isolation_level=None) as journal:
            columns = [row[1] for row in journal.execute("pragma table_info(domains)")]
            values = {"server_id": EVENT["server_uuid"], "host": "cmp-1", "state": "active"}
            row = [values.get(column, 0) for column in columns]
            journal.execute(f"insert into domains values ({','.join('?' * len(row))})", row)
            journal.execute("BEGIN EXCLUSIVE")
            answer = pool.submit(api.post)
            until(lambda: _waits(api), "the request is being answered")
            api.process.terminate()
            until(lambda: "stops within" in api.log, "it is stopping")
            journal.execute("ROLLBACK")
        assert answer.result(30).json()["events"][0]["code"] == 200
        assert api.process.wait(120) == 0


def _waits(api: Served) -> bool:
    """Whether the server has read the request: a connection that is open, with nothing to read, for ten looks."""
    port = int(api.url.rpartition(":")[2])
    for _ in range(10):
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        mine = [row for row in rows if int(row[1].rpartition(":")[2], 16) == port and row[3] == "01"]
        if not mine or any(row[4] != "00000000:00000000" for row in mine):
            return False
        time.sleep(0.02)
    return True
