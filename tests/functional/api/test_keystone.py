# SPDX-License-Identifier: Apache-2.0
"""Who comes in with a token of a real Keystone, and what happens while it is away."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from bridge.cmd.upgrade_check import main as status
from tests.functional.api.conftest import PATH, Served, built_in
from tests.lab.keystone import Keystone
from tests.lab.waiting import until

pytestmark = pytest.mark.functional

IN = 207


@pytest.fixture(scope="module")
def api(keystone: Keystone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """extend-bridge-api that asks it."""
    limits = "rate_limit = 0\nfailure_limit = 0\nkeystone_timeout = 30"
    with built_in(
        tmp_path_factory.mktemp("api"), f"auth_strategy = keystone\n{limits}", keystone.authtoken()
    ) as served:
        yield served


@pytest.mark.parametrize(
    ("user", "project", "status"),
    [
        ("cinder", "service", IN),
        ("svconly", "service", IN),
        ("admin", "admin", IN),
        ("demo", "demo", 403),
        ("cinder", None, 403),
    ],
    ids=["service and admin", "service alone", "admin", "member", "unscoped"],
)
def test_roles_decide(api: Served, keystone: Keystone, user: str, project: str | None, status: int) -> None:
    """service or admin, in a project."""
    answer = api.post(keystone.token(user, project))
    assert answer.status_code == status, answer.text
    if status == 403:
        words = "Policy doesn't allow os_compute_api:os-server-external-events:create to be performed."
        assert answer.json() == {"forbidden": {"code": 403, "message": words}}


def test_a_token_of_the_system_is_none_of_a_project(api: Served, keystone: Keystone) -> None:
    """As Nova since 25.0."""
    assert api.post(keystone.token("admin", None, system=True)).status_code == 403


@pytest.mark.parametrize(
    "token",
    [None, "", "rubbish", "gAAAAAB" + "k" * 180, "x" * 9000, "a b"],
    ids=["no", "empty", "rubbish", "looks real", "long", "two words"],
)
def test_no_token_of_keystones_is_401_as_in_front_of_nova(
    api: Served, keystone: Keystone, token: str | None
) -> None:
    """Body, type and challenge to the byte."""
    answer = api.post(token)
    assert answer.status_code == 401
    assert answer.text == (
        '{"error": {"code": 401, "title": "Unauthorized", "message": '
        '"The request you have made requires authentication."}}'
    )
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["WWW-Authenticate"] == f'Keystone uri="{keystone.url}"'


def test_a_revoked_token_is_401(api: Served, keystone: Keystone) -> None:
    """One that was never seen, so that no cache knows it."""
    token = keystone.token("cinder", "service")
    keystone.revoke(token)
    assert api.post(token).status_code == 401


def test_a_token_ends_at_its_time_also_when_it_is_cached(api: Served, keystone: Keystone) -> None:
    """Keystone is asked again once at most, shortly before the end: a remembered caller never waits for it."""

    def used_in_time() -> str | None:
        """Return a token that came in before it ended, which a busy machine may not manage at the first try."""
        token = keystone.token("cinder", "service")
        return token if api.post(token).status_code == IN else None

    keystone.stop()
    keystone.start(token_seconds=10)
    try:
        token = until(used_in_time, "a token comes in")
        assert token is not None
        asked = keystone.validations(token)
        until(lambda: api.post(token).status_code == 401, "the token has ended")
        assert keystone.validations(token) - asked <= 1
    finally:
        keystone.stop()
        keystone.start()


@pytest.mark.parametrize(("project", "status"), [("service", IN), ("demo", 400)])
def test_a_project_in_the_path_has_to_be_the_tokens(
    api: Served, keystone: Keystone, project: str, status: int
) -> None:
    """As Nova."""
    path = f"/v2.1/{keystone.projects[project]}/os-server-external-events"
    answer = api.post(keystone.token("cinder", "service"), path=path)
    assert answer.status_code == status, answer.text


def test_a_token_is_asked_for_once(api: Served, keystone: Keystone) -> None:
    """Not for every request of the listener."""
    token = keystone.token("svconly", "service")
    assert {api.post(token).status_code for _ in range(20)} == {IN}
    assert keystone.validations(token) == 1


def test_headers_of_the_caller_give_nobody_a_role(api: Served, keystone: Keystone) -> None:
    """X-Roles and its like are keystonemiddleware's to set."""
    made_up: dict[str, Any] = {
        "X-Roles": "admin",
        "X-Project-Id": "x",
        "X-Identity-Status": "Confirmed",
        "X-User-Id": "root",
    }
    assert api.post(keystone.token("demo", "demo"), **made_up).status_code == 403
    assert api.post(None, **made_up).status_code == 401


def test_while_keystone_is_away_it_is_503_and_then_it_goes_on(api: Served, keystone: Keystone) -> None:
    """Known tokens work on; a new one is asked to come back, and gets in once Keystone is there."""
    known, new = keystone.token("cinder", "service"), keystone.token("svconly", "service")
    assert api.post(known).status_code == IN
    keystone.stop()
    try:
        assert api.post(known).status_code == IN
        answer = api.post(new)
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.json()["serviceUnavailable"]["code"] == 503
    finally:
        keystone.start()
    until(lambda: api.post(new).status_code == IN, "the new token gets in")
    assert "Traceback" not in api.log


def test_a_password_of_ours_that_is_wrong_is_not_the_callers_fault(keystone: Keystone, tmp_path: Path) -> None:
    """503, and the log says who has to mend what."""
    section = keystone.authtoken().replace("password = lab-secret", "password = old-secret")
    with built_in(tmp_path, "auth_strategy = keystone", section) as served:
        assert served.post(keystone.token("cinder", "service")).status_code == 503
        assert "cannot be reached" in served.log
        assert "Traceback" not in served.log


def test_no_token_and_no_password_is_in_any_log(api: Served, keystone: Keystone) -> None:
    """Nor in the audit log."""
    token = keystone.token("cinder", "service")
    api.post(token)
    api.post(f"{token}-broken")
    written = api.log + (api.directory / "audit.jsonl").read_text()
    assert token not in written
    assert "lab-secret" not in written
    assert f'"POST {PATH}" 207' in api.log


def test_the_documents_need_no_token(api: Served) -> None:
    """Clients read them before they have one."""
    for path in ("/", "/v2.1", "/v2.1/", "/healthcheck"):
        assert requests.get(f"{api.url}{path}", timeout=120).status_code == 200


def checked(
    directory: Path, keystone: Keystone, capsys: pytest.CaptureFixture[str], old: str = "", new: str = ""
) -> str:
    """What `upgrade check` says of [cinder]'s user at Keystone."""
    user = keystone.authtoken().replace("[keystone_authtoken]", "[cinder]").replace(old, new)
    conf = directory / "check.conf"
    conf.write_text(
        f"[journal]\nconnection = sqlite:///{directory}/j.sqlite3\n[bus]\ntransport_url = memory://\n{user}"
    )
    assert status(["--config-file", str(conf), "--part", "engine", "upgrade", "check"]) == 2  # there is no Cinder
    said = " ".join(capsys.readouterr().out.replace("|", " ").split())
    return said.partition("Check: Keystone ")[2].partition(" Check: ")[0]


def test_the_status_check_asks_keystone_for_tokens(
    keystone: Keystone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And says in words what is wrong with the user, or that nobody answers; never a password."""
    assert "Result: Success Details: tokens for cinder" in checked(tmp_path, keystone, capsys)
    wrong = checked(tmp_path, keystone, capsys, "password = ", "password = not-")
    assert "Result: Failure Details: [cinder] gets no token: Unauthorized" in wrong
    assert "not-" not in wrong
    keystone.stop()
    assert "gets no token: ConnectFailure" in checked(tmp_path, keystone, capsys)
    keystone.start()
