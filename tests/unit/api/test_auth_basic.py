# SPDX-License-Identifier: Apache-2.0
"""Names and passwords from a file."""

import base64
import os
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


def request(header: str | None) -> falcon.Request:
    return falcon.Request(testing.create_environ(headers={"Authorization": header} if header else {}))


def basic(name: str, password: str) -> falcon.Request:
    return request("Basic " + base64.b64encode(f"{name}:{password}".encode()).decode())


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
        ("", 0o640, "names no user"),
        (line("a", "b"), 0o644, "chmod it to 0640"),
        (line("a", "b"), 0o660, "chmod it to 0640"),
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
