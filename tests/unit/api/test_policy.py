# SPDX-License-Identifier: Apache-2.0
"""What roles allow."""

import time
from pathlib import Path

import pytest

import bridge.api.policy as module
from bridge.api.faults import FaultError
from bridge.api.identity import Identity
from bridge.api.policy import CREATE, OsloPolicy
from bridge.core.errors import ConfigError
from bridge.runtime import config

PROJECT = "a" * 32


def policy(where: Path, text: str | None = None) -> OsloPolicy:
    """The rules with a policy file of this text, or none."""
    conf = where / "x.conf"
    lines = "" if text is None else f"[oslo_policy]\npolicy_file = {where}/policy.yaml\n"
    conf.write_text(lines)
    if text is not None:
        (where / "policy.yaml").write_text(text)
    return OsloPolicy(config.load("x", [], ["--config-file", str(conf)], description="x"))


def who(*roles: str, **more: object) -> Identity:
    return Identity(**{"user": "u", "project": PROJECT, "roles": frozenset(roles), **more})  # type: ignore[arg-type]


def status(rules: OsloPolicy, identity: Identity) -> int:
    try:
        rules.check(identity)
    except FaultError as ex:
        return ex.status
    return 200


@pytest.mark.parametrize("roles", [("admin",), ("service",), ("service", "member"), ("Admin",)])
def test_service_or_admin_may(tmp_path: Path, roles: tuple[str, ...]) -> None:
    """Nova's default of today; role names in any case, as oslo.policy compares them."""
    policy(tmp_path).check(who(*roles))


@pytest.mark.parametrize("roles", [(), ("member",), ("reader", "manager"), ("servic",)])
def test_others_may_not_in_novas_words(tmp_path: Path, roles: tuple[str, ...]) -> None:
    with pytest.raises(FaultError) as refused:
        policy(tmp_path).check(who(*roles))
    assert refused.value.status == 403
    assert f'"Policy doesn\'t allow {CREATE} to be performed."'.encode() in refused.value.body


@pytest.mark.parametrize("scope", [{"project": None, "system": True}, {"project": None, "domain": "d"}])
def test_a_token_of_another_scope_may_not(tmp_path: Path, scope: dict[str, object]) -> None:
    """As Nova since 25.0: a project's token, also for administrators."""
    assert status(policy(tmp_path), who("admin", **scope)) == 403


def test_without_keystone_there_are_no_projects(tmp_path: Path) -> None:
    """noauth and http_basic."""
    policy(tmp_path).check(who("service", project=None))


@pytest.mark.parametrize(
    ("text", "member", "admin", "service"),
    [
        (f'"{CREATE}": "role:member"', 200, 403, 403),
        (f'"{CREATE}": "rule:admin_api"', 403, 200, 403),
        ('"admin_api": "is_admin:True"', 403, 200, 200),
        ('"context_is_admin": "role:member"', 200, 403, 200),
        (f'"{CREATE}": "!"', 403, 403, 403),
        ('"service_api": "role:nova"', 403, 200, 403),
    ],
)
def test_the_policy_file_decides_as_in_front_of_nova(
    tmp_path: Path, text: str, member: int, admin: int, service: int
) -> None:
    rules = policy(tmp_path, text)
    assert [status(rules, who(role)) for role in ("member", "admin", "service")] == [member, admin, service]


def test_a_changed_file_counts_and_a_broken_one_lets_nobody_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503, since nobody can say who may; it goes on by itself."""
    monkeypatch.setattr(module, "_KEEP", 0.0)
    rules = policy(tmp_path, f'"{CREATE}": "role:admin"')
    assert status(rules, who("service")) == 403
    (tmp_path / "policy.yaml").write_text(f'"{CREATE}": "role:service or role:admin"  ')
    assert status(rules, who("service")) == 200
    (tmp_path / "policy.yaml").write_text('"broken: [')
    assert status(rules, who("admin")) == 503
    assert "policy file cannot be used" in caplog.text
    (tmp_path / "policy.yaml").write_text(f'"{CREATE}": "role:service" ')
    assert status(rules, who("service")) == 200


@pytest.mark.parametrize("text", ['"broken: [', f'"{CREATE}": "rule:nothing"'])
def test_a_broken_file_ends_the_start(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="policy_file"):
        policy(tmp_path, text)


def test_who_was_allowed_is_not_looked_at_again_for_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was not is; and the second passes."""
    rules = policy(tmp_path, f'"{CREATE}": "role:service"')
    assert [status(rules, who("service")), status(rules, who("admin"))] == [200, 403]
    (tmp_path / "policy.yaml").write_text(f'"{CREATE}": "role:admin" ')
    assert [status(rules, who("service")), status(rules, who("admin"))] == [200, 200]
    later = time.monotonic() + 1.5
    monkeypatch.setattr("bridge.api.policy.time.monotonic", lambda: later)
    assert [status(rules, who("service")), status(rules, who("admin"))] == [403, 200]


@pytest.mark.parametrize(
    ("text", "identity", "says"),
    [
        (None, who("member"), "the role service or admin is missing, and no policy file says otherwise"),
        (None, who("admin", project=None, system=True), "the token is not scoped to a project"),
        (f'"{CREATE}": "!"', who("admin"), f"policy.yaml has rules of its own for {CREATE}"),
        ('"context_is_admin": "role:boss"', who("admin"), "rules of its own for context_is_admin"),
        ('"os_compute_api:servers:create": "!"', who("member"), "the role service or admin is missing"),
    ],
)
def test_a_refusal_says_in_the_log_where_to_look(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str | None, identity: Identity, says: str
) -> None:
    """A role cannot mend what a policy file forbids."""
    assert status(policy(tmp_path, text), identity) == 403
    assert says in caplog.text
