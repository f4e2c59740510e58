# SPDX-License-Identifier: Apache-2.0
"""How often one may knock."""

from collections.abc import Callable
from functools import partial

import falcon
from falcon import testing

from bridge.api.auth import Buckets, Guard
from bridge.api.faults import FaultError, unauthorized
from bridge.api.identity import Identity
from bridge.api.settings import Rate
from tests.unit.api.fakes import Api, event
from tests.unit.clock import PlayedClock

NO_LIMIT = Rate(per_second=0, burst=1)


class Counted:
    """Knows one token, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def authenticate(self, req: falcon.Request) -> Identity:
        self.asked += 1
        token = req.get_header("X-Auth-Token") or ""
        if not token.startswith("good"):
            raise unauthorized("x")
        return Identity(user=token)


def request(token: str | None = "good", address: str = "192.0.2.1") -> falcon.Request:
    headers = {"X-Auth-Token": token} if token else {}
    return falcon.Request(testing.create_environ(headers=headers, remote_addr=address))


def status(call: Callable[[], object]) -> int:
    try:
        call()
    except FaultError as ex:
        return ex.status
    return 200


def test_a_caller_has_its_burst_and_then_its_rate(clock: PlayedClock) -> None:
    guard = Guard(Counted(), requests=Rate(per_second=2, burst=3), failures=NO_LIMIT, clock=clock)
    assert [status(lambda: guard.authenticate(request())) for _ in range(5)] == [200, 200, 200, 429, 429]
    assert status(lambda: guard.authenticate(request("good2"))) == 200  # each its own
    clock.now += 0.5
    assert [status(lambda: guard.authenticate(request())) for _ in range(2)] == [200, 429]


def test_who_is_told_to_wait_is_told_how_long(clock: PlayedClock) -> None:
    """As Nova words it, and with Retry-After in whole seconds."""
    guard = Guard(Counted(), requests=Rate(per_second=0.1, burst=1), failures=NO_LIMIT, clock=clock)
    api = Api(auth=guard)
    assert api.post(event(), headers={"X-Auth-Token": "good"}).status_code == 200
    answer = api.post(event(), headers={"X-Auth-Token": "good"})
    assert (answer.status_code, list(answer.json), answer.headers["retry-after"]) == (429, ["overLimit"], "10")


def test_a_guesser_is_stopped_before_it_costs_anything(clock: PlayedClock) -> None:
    """And who was good before, from the same address, is not."""
    inner = Counted()
    guard = Guard(inner, requests=NO_LIMIT, failures=Rate(per_second=1, burst=5), clock=clock)
    guard.authenticate(request("good-listener"))
    answers = [status(partial(guard.authenticate, request(f"guess-{n}"))) for n in range(50)]
    assert answers == [401] * 5 + [429] * 45
    assert inner.asked == 6
    assert status(lambda: guard.authenticate(request("good-listener"))) == 200
    assert status(lambda: guard.authenticate(request("good-new"))) == 429
    assert status(lambda: guard.authenticate(request("good-new", "192.0.2.2"))) == 200
    clock.now += 1.5
    assert status(lambda: guard.authenticate(request("good-new"))) == 200


def test_requests_without_credentials_are_not_counted_as_failures(clock: PlayedClock) -> None:
    """keystoneauth asks without a token to learn where Keystone is."""
    guard = Guard(Counted(), requests=NO_LIMIT, failures=Rate(per_second=1, burst=1), clock=clock)
    assert {status(lambda: guard.authenticate(request(None))) for _ in range(5)} == {401}
    assert status(lambda: guard.authenticate(request())) == 200


def test_a_million_addresses_take_no_more_memory_than_the_first_thousands(clock: PlayedClock) -> None:
    buckets = Buckets(Rate(per_second=1, burst=1), clock=clock, keys=100)
    for n in range(1000):
        buckets.take(str(n))
    assert len(buckets) == 100


def test_a_rate_of_zero_means_no_limit(clock: PlayedClock) -> None:
    buckets = Buckets(NO_LIMIT, clock=clock)
    assert [buckets.take("x") for _ in range(5)] == [0.0] * 5
    assert len(buckets) == 0


def test_who_was_known_a_moment_ago_is_not_asked_for_again(clock: PlayedClock) -> None:
    """For a second, by the same credentials on the same path; a failure is never remembered."""
    inner = Counted()
    guard = Guard(inner, requests=NO_LIMIT, failures=NO_LIMIT, clock=clock)
    assert {guard.authenticate(request()).user for _ in range(5)} == {"good"}
    assert inner.asked == 1
    for other in (
        testing.create_environ(headers={"X-Auth-Token": "good", "X-Service-Token": "s"}),
        testing.create_environ(headers={"X-Auth-Token": "good"}, path="/v2.1/other"),
        testing.create_environ(headers={"X-Auth-Token": "good"}, method="POST"),
    ):
        guard.authenticate(falcon.Request(other))
    assert inner.asked == 4
    clock.now += 1.0
    guard.authenticate(request())
    assert inner.asked == 5
    assert [status(lambda: guard.authenticate(request("bad"))) for _ in range(3)] == [401] * 3
    assert inner.asked == 8


def test_who_was_known_is_still_counted(clock: PlayedClock) -> None:
    guard = Guard(Counted(), requests=Rate(per_second=1, burst=2), failures=NO_LIMIT, clock=clock)
    assert [status(lambda: guard.authenticate(request())) for _ in range(3)] == [200, 200, 429]


def test_a_slow_check_does_not_pay_for_the_next_guess(clock: PlayedClock) -> None:
    """bcrypt at a high cost, a slow Keystone: while it works the bucket would fill again."""

    class Slow(Counted):
        def authenticate(self, req: falcon.Request) -> Identity:
            clock.now += 1.0
            return super().authenticate(req)

    guard = Guard(Slow(), requests=NO_LIMIT, failures=Rate(per_second=5, burst=20), clock=clock)
    answers = [status(partial(guard.authenticate, request(f"guess-{n}"))) for n in range(50)]
    assert 401 in answers
    assert answers[-1] == 429
    assert answers.count(401) <= 20


def test_failures_are_counted_by_network(clock: PlayedClock) -> None:
    """One caller has all addresses of a /64."""
    inner = Counted()
    guard = Guard(inner, requests=NO_LIMIT, failures=Rate(per_second=1, burst=5), clock=clock)
    for n in range(50):
        status(partial(guard.authenticate, request(f"guess-{n}", f"2001:db8::{n:x}")))
    assert inner.asked == 5


def test_a_caller_is_remembered_for_as_long_as_its_identity_says(clock: PlayedClock) -> None:
    """In the last tenth of that time its credentials are checked again."""

    class Long(Counted):
        def authenticate(self, req: falcon.Request) -> Identity:
            return Identity(user=super().authenticate(req).user, good_for=30.0 if self.asked == 1 else 0.0)

    inner = Long()
    guard = Guard(inner, requests=NO_LIMIT, failures=NO_LIMIT, clock=clock)
    for _ in range(27):
        guard.authenticate(request())
        clock.now += 1.0
    assert inner.asked == 1
    clock.now += 0.5
    guard.authenticate(request())
    guard.authenticate(request())
    assert inner.asked == 3
