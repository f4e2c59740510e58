# SPDX-License-Identifier: Apache-2.0
"""A Keystone that answers strangely, slowly or not at all: few wait for it, none for long, known ones never."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import falcon
import pytest
from falcon.testing import create_req
from oslo_config import cfg
from oslo_utils import timeutils

from bridge.api.auth import Guard
from bridge.api.auth_keystone import Keystone, TokenCache
from bridge.api.faults import FaultError
from bridge.api.identity import Authenticator
from bridge.api.settings import Rate
from tests.lab.keystone_standin import SERVICE_TOKEN, KeystoneStandIn
from tests.lab.ports import steady_port
from tests.lab.proxy import Proxy, Which
from tests.lab.waiting import until


@pytest.fixture
def standin() -> Iterator[KeystoneStandIn]:
    with KeystoneStandIn() as running:
        yield running


@pytest.fixture
def auth(standin: KeystoneStandIn, tmp_path: Path) -> Keystone:
    file = tmp_path / "api.conf"
    file.write_text(standin.authtoken())
    conf = cfg.ConfigOpts()
    conf(["--config-file", str(file)], project="extend-bridge")
    return Keystone(conf)


def request() -> falcon.Request:
    req = create_req(headers={"X-Auth-Token": SERVICE_TOKEN})
    req.context.request_id = "req-1"
    return req


@pytest.mark.parametrize(
    "says",
    [
        b"<html>down for maintenance</html>",
        b"",
        b"[]",
        b"1",
        b"{}",
        b'{"token": {}}',
        b'{"token": null}',
        b'{"token": {"expires_at": "2999-01-01T00:00:00Z"}}',
        b'{"token": {"expires_at": "never", "user": 1}}',
    ],
)
def test_an_answer_that_is_none_of_keystones_is_503_until_it_is_back(
    standin: KeystoneStandIn, auth: Keystone, says: bytes
) -> None:
    """As of a proxy before it. A 500 would be held against the events, and park them in the end."""
    standin.says = says
    with pytest.raises(FaultError) as refused:
        auth.authenticate(request())
    assert refused.value.status == 503
    assert refused.value.headers["Retry-After"]
    standin.says = None
    assert auth.authenticate(request()).roles == {"service"}


JSON_ERROR = b'{"error": {"code": 400, "message": "password s3cret-word of your request is wrong"}}'


def outcome(auth: Authenticator, token: str) -> int:
    req = create_req(headers={"X-Auth-Token": token})
    req.context.request_id = "req-1"
    try:
        auth.authenticate(req)
    except FaultError as ex:
        return ex.status
    return 200


@pytest.fixture
def proxy(standin: KeystoneStandIn) -> Iterator[Proxy]:
    standin.strict = True
    with Proxy(int(standin.url.split(":")[2].split("/")[0])) as running:
        standin.reached_at(running.url(standin.url))
        yield running


def keystone(standin: KeystoneStandIn, where: Path, *, seconds: float, places: int = 4, more: str = "") -> Keystone:
    file = where / "api.conf"
    file.write_text(standin.authtoken() + more)
    conf = cfg.ConfigOpts()
    conf(["--config-file", str(file)], project="extend-bridge")
    return Keystone(conf, seconds=seconds, places=places)


@pytest.mark.parametrize("fault", ["frozen", "dripping"])
def test_a_question_ends_though_keystone_does_not_answer(
    standin: KeystoneStandIn, proxy: Proxy, tmp_path: Path, fault: str
) -> None:
    """One deadline for all of it: a byte now and then does not move it. Healed, the same caller comes in."""
    auth = keystone(standin, tmp_path, seconds=1)
    if fault == "frozen":
        proxy.freeze(Which.ALL)
    else:
        proxy.drip(1, Which.ALL)  # the shortest answer would take minutes
    started = time.monotonic()
    assert outcome(auth, SERVICE_TOKEN) == 503
    assert time.monotonic() - started < 120
    why = auth.check()
    assert why is not None
    assert "gives no complete answer in 1 s" in why
    proxy.heal()
    proxy.reset()
    until(lambda: outcome(auth, SERVICE_TOKEN) == 200, "the caller comes in")
    assert auth.check() is None


def test_strangers_take_all_places_but_one_and_known_callers_none(
    standin: KeystoneStandIn, proxy: Proxy, tmp_path: Path
) -> None:
    """Beyond the places the answer is 503 at once; a caller who is remembered does not ask."""
    auth = keystone(standin, tmp_path, seconds=60, places=3)
    guard = Guard(auth, requests=Rate(per_second=0, burst=1), failures=Rate(per_second=0, burst=1))
    assert outcome(guard, SERVICE_TOKEN) == 200
    before = proxy.accepted
    proxy.freeze(Which.ALL)
    with ThreadPoolExecutor(8) as pool:
        strangers = [pool.submit(outcome, guard, f"junk-{n}") for n in range(6)]
        until(lambda: sum(stranger.done() for stranger in strangers) == 4, "four of six have their 503")
        assert proxy.accepted - before <= 2
        assert outcome(guard, SERVICE_TOKEN) == 200
        proxy.heal()
        assert sorted(stranger.result(60) for stranger in strangers) == [401, 401, 503, 503, 503, 503]


def test_a_remembered_caller_outlives_a_short_outage(standin: KeystoneStandIn, tmp_path: Path) -> None:
    """It is checked again before its time is over; while that fails, what is remembered holds to its end."""
    now = time.monotonic()
    auth = keystone(standin, tmp_path, seconds=5, more="token_cache_time = 100\n")
    guard = Guard(
        auth, requests=Rate(per_second=0, burst=1), failures=Rate(per_second=0, burst=1), clock=lambda: now
    )
    assert outcome(guard, SERVICE_TOKEN) == 200
    auth._cache._rows.clear()
    standin.says = b"<html>down for maintenance</html>"
    now += 95
    assert outcome(guard, SERVICE_TOKEN) == 200
    now += 6
    assert outcome(guard, SERVICE_TOKEN) == 503


def test_a_token_that_was_revoked_is_out_when_it_is_checked_again(standin: KeystoneStandIn, tmp_path: Path) -> None:
    now = time.monotonic()
    auth = keystone(standin, tmp_path, seconds=5, more="token_cache_time = 100\n")
    guard = Guard(
        auth, requests=Rate(per_second=0, burst=1), failures=Rate(per_second=0, burst=1), clock=lambda: now
    )
    assert outcome(guard, "mine") == 200
    standin.strict = True
    auth._cache._rows.clear()
    now += 50
    assert outcome(guard, "mine") == 200
    now += 45
    assert outcome(guard, "mine") == 401
    assert outcome(guard, "mine") == 401


@pytest.mark.parametrize(
    ("error", "says"),
    [
        ((401, JSON_ERROR), "refuses the user of [keystone_authtoken]: check username, password"),
        ((400, JSON_ERROR), "check user_domain_name and project_domain_name"),
        ((403, JSON_ERROR), "does not let the user of [keystone_authtoken] validate tokens"),
        ((500, JSON_ERROR), "answers 500"),
        ((404, b"nothing here"), "check [keystone_authtoken] auth_url"),
    ],
)
def test_the_check_says_what_is_wrong_and_what_to_set(
    standin: KeystoneStandIn, tmp_path: Path, error: tuple[int, bytes], says: str
) -> None:
    """Without a word of Keystone's answer, which may quote our request."""
    auth = keystone(standin, tmp_path, seconds=5)
    assert auth.check() is None
    standin.error = error
    auth._filter._identity_server.invalidate()
    why = auth.check()
    assert why is not None
    assert f"Keystone at {standin.url} " in why
    assert says in why
    assert "s3cret-word" not in why
    standin.error = None
    assert auth.check() is None


def test_the_check_names_an_address_where_no_keystone_is(standin: KeystoneStandIn, tmp_path: Path) -> None:
    standin.url = f"http://127.0.0.1:{steady_port()}/v3"
    why = keystone(standin, tmp_path, seconds=2).check()
    assert why == f"Keystone at {standin.url} cannot be reached: Connection refused"


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_a_wall_clock_that_is_set_does_not_change_how_long_a_token_is_kept(
    monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    now = [100.0]
    cache = TokenCache(clock=lambda: now[0])
    cache.set("token", b"its owner", time=300)
    wall = time.time()
    monkeypatch.setattr(time, "time", lambda: wall + jump)
    monkeypatch.setattr(timeutils, "utcnow_ts", lambda **_: wall + jump)
    assert cache.get("token") == b"its owner"
    now[0] += 300
    assert cache.get("token") is None
