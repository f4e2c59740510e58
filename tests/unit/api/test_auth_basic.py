# SPDX-License-Identifier: Apache-2.0
"""Names and passwords from a file."""

import base64
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import bcrypt
import falcon
import pytest
from falcon import testing

import bridge.api.auth_basic as module
from bridge.api.auth_basic import HttpBasic
from bridge.api.faults import FaultError
from bridge.core.errors import ConfigError


def line(name: str, password: str, cost: int = 8) -> str:
    return f"{name}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()}\n"


def write(path: Path, text: str, mode: int = 0o640) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "htpasswd", "# who may\n\n" + line("cinder", "s3cret") + line("ünï", "pässword"))


def request(header: str | None, address: str | None = None) -> falcon.Request:
    headers = {"Authorization": header} if header else {}
    return falcon.Request(testing.create_environ(headers=headers, remote_addr=address))


def basic(name: str, password: str, address: str | None = None) -> falcon.Request:
    return request("Basic " + base64.b64encode(f"{name}:{password}".encode()).decode(), address)


def refused(auth: HttpBasic, req: falcon.Request) -> FaultError:
    with pytest.raises(FaultError) as error:
        auth.authenticate(req)
    return error.value


@pytest.mark.parametrize(("name", "password"), [("cinder", "s3cret"), ("ünï", "pässword")])
def test_a_good_pair_is_a_service(file: Path, name: str, password: str) -> None:
    who = HttpBasic(str(file)).authenticate(basic(name, password))
    assert (who.user, who.roles, who.project) == (name, frozenset({"service"}), None)


def test_a_good_pair_is_checked_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """bcrypt is slow on purpose: not for every request of the listener."""
    auth, real = HttpBasic(str(file)), bcrypt.checkpw
    checks: list[Any] = []
    monkeypatch.setattr("bridge.api.auth_basic.bcrypt.checkpw", lambda *a: checks.append(a) or real(*a))
    for _ in range(5):
        auth.authenticate(basic("cinder", "s3cret"))
    assert len(checks) == 1
    for _ in range(3):
        refused(auth, basic("cinder", "wrong"))
    assert len(checks) == 4


def test_an_unknown_name_costs_the_same_check(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a hash of the file's highest cost: the time tells nobody which names there are."""
    auth, real = HttpBasic(str(file)), bcrypt.checkpw
    against: list[bytes] = []
    monkeypatch.setattr("bridge.api.auth_basic.bcrypt.checkpw", lambda *a: against.append(a[1]) or real(*a))
    refused(auth, basic("nobody", "s3cret"))
    refused(auth, basic("cinder", "x" * 100))
    refused(auth, basic("cinder", "s3cret\0"))
    assert [hashed[:7] for hashed in against] == [b"$2b$08$"] * 3


@pytest.mark.parametrize(
    "header",
    [
        None, "", "Basic", "Basic !!!", "Bearer x", "Basic " + base64.b64encode(b"cinder").decode(),
        "Basic " + base64.b64encode(b"\xff\xfe:x").decode(), "Basic " + base64.b64encode(b":").decode(),
    ],
)  # fmt: skip
def test_anything_else_is_401_with_its_challenge(file: Path, header: str | None) -> None:
    fault = refused(HttpBasic(str(file)), request(header))
    assert (fault.status, fault.headers["WWW-Authenticate"][:5]) == (401, "Basic")


def test_a_changed_file_is_read_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password that was changed, or a user who is gone, is out at once, though it was remembered."""
    monkeypatch.setattr(module, "_LOOK_EVERY", 0.0)
    auth = HttpBasic(str(file))
    auth.authenticate(basic("cinder", "s3cret"))
    auth.authenticate(basic("ünï", "pässword"))
    write(file, line("cinder", "new"))
    os.utime(file, ns=(1, 1))
    auth.authenticate(basic("cinder", "new"))
    refused(auth, basic("cinder", "s3cret"))
    refused(auth, basic("ünï", "pässword"))


def test_a_file_broken_later_keeps_the_users_and_says_so(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_LOOK_EVERY", 0.0)
    auth = HttpBasic(str(file))
    write(file, "cinder:plain-text-s3cret\n")
    auth.authenticate(basic("cinder", "s3cret"))
    assert "line 1 of" in caplog.text
    assert "plain-text" not in caplog.text


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        ("cinder:$apr1$x$y\n", 0o640, "line 1 of"),
        ("\ncinder:s3cret\n", 0o640, "line 2 of"),
        ("cinder:$2b$04$" + "a" * 53, 0o640, "cost from 8 to 15"),
        ("cinder:$2b$31$" + "a" * 53, 0o640, "cost from 8 to 15"),
        ("cinder:$2b$32$" + "a" * 53, 0o640, "cost from 8 to 15"),
        ("", 0o640, "has no users"),
        pytest.param(line("a", "b"), 0o644, "set its mode to 0640", id="world-readable"),
        pytest.param(line("a", "b"), 0o660, "set its mode to 0640", id="group-writable"),
    ],
)
def test_a_file_that_cannot_be_trusted_ends_the_start(tmp_path: Path, text: str, mode: int, says: str) -> None:
    file = write(tmp_path / "htpasswd", text, mode)
    with pytest.raises(ConfigError, match=says) as error:
        HttpBasic(str(file))
    assert "s3cret" not in str(error.value)


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    """As some editors write it."""
    file = write(tmp_path / "htpasswd", "\N{ZERO WIDTH NO-BREAK SPACE}" + line("cinder", "s3cret"))
    assert HttpBasic(str(file)).authenticate(basic("cinder", "s3cret")).user == "cinder"


def test_a_missing_file_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"http_basic_auth_user_file: .*No such file"):
        HttpBasic(str(tmp_path / "absent"))


class SlowBcrypt:
    """bcrypt whose checks end when they are told to."""

    def __init__(self) -> None:
        self.running = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)
        self.count = 0
        self.most = 0
        self._lock = threading.Lock()

    def __call__(self, password: bytes, hashed: bytes) -> bool:
        with self._lock:
            self.count += 1
            self.most = max(self.most, self.count)
        self.running.release()
        assert self.go_on.acquire(timeout=120)
        with self._lock:
            self.count -= 1
        return bool(bcrypt.hashpw(password, hashed) == hashed)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowBcrypt]:
    check = SlowBcrypt()
    monkeypatch.setattr("bridge.api.auth_basic.bcrypt.checkpw", check)
    yield check
    check.go_on.release(100)


def outcome(auth: HttpBasic, req: falcon.Request) -> int:
    try:
        auth.authenticate(req)
    except FaultError as ex:
        return ex.status
    return 200


def test_two_checks_run_at_a_time_and_the_next_is_429(file: Path, slow: SlowBcrypt) -> None:
    """At once, with a time to come back: a guesser holds neither the threads nor all processors."""
    auth = HttpBasic(str(file))
    with ThreadPoolExecutor() as pool:
        checks = [pool.submit(outcome, auth, basic("cinder", "s3cret")) for _ in range(2)]
        assert all(slow.running.acquire(timeout=120) for _ in range(2))
        fault = refused(auth, basic("cinder", "s3cret"))
        assert (fault.status, fault.headers["Retry-After"]) == (429, "1")
        slow.go_on.release(2)
        assert [check.result(30) for check in checks] == [200, 200]
    assert slow.most == 2


def test_a_remembered_caller_is_never_behind_a_check(file: Path, slow: SlowBcrypt) -> None:
    auth = HttpBasic(str(file))
    slow.go_on.release()
    auth.authenticate(basic("cinder", "s3cret"))
    assert slow.running.acquire(timeout=120)
    with ThreadPoolExecutor() as pool:
        guesses = [pool.submit(outcome, auth, basic("cinder", f"guess-{n}")) for n in range(2)]
        assert all(slow.running.acquire(timeout=120) for _ in range(2))
        assert auth.authenticate(basic("cinder", "s3cret")).user == "cinder"
        slow.go_on.release(2)
        assert [guess.result(30) for guess in guesses] == [401, 401]


def test_guessers_leave_one_check_to_others(file: Path, slow: SlowBcrypt) -> None:
    """A caller who is not known yet gets in beside them."""
    auth = HttpBasic(str(file))
    slow.go_on.release()
    assert outcome(auth, basic("cinder", "guess", "192.0.2.1")) == 401
    assert slow.running.acquire(timeout=120)
    with ThreadPoolExecutor() as pool:
        guess = pool.submit(outcome, auth, basic("cinder", "guess-1", "192.0.2.1"))
        assert slow.running.acquire(timeout=120)
        assert outcome(auth, basic("cinder", "guess-2", "192.0.2.1")) == 429
        good = pool.submit(outcome, auth, basic("cinder", "s3cret", "192.0.2.2"))
        assert slow.running.acquire(timeout=120)
        slow.go_on.release(2)
        assert (guess.result(30), good.result(30)) == (401, 200)
