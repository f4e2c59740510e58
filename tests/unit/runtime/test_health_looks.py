# SPDX-License-Identifier: Apache-2.0
"""A look at a service asks for little: it ends a look's bad word at once, and a request's only much later."""

from bridge.runtime.health import LIMIT, REPEATED, Check, Health
from tests.unit.clock import PlayedClock

NAME = "engine.cinder"
REFUSED = "the user needs the role admin"


def test_a_good_look_ends_the_bad_word_of_a_look(health: Health) -> None:
    health.looked(NAME, "refused")
    assert health.checks()[NAME] == Check(False, "refused")
    health.looked(NAME, None)
    assert health.ready()


def test_no_look_replaces_the_bad_word_of_a_request(health: Health) -> None:
    health.bad(NAME, REFUSED)
    for wrong in (None, "refused", None):
        health.looked(NAME, wrong)
        assert health.checks()[NAME] == Check(False, REFUSED)
    health.ok(NAME, good_for=LIMIT)
    health.looked(NAME, "refused")
    assert not health.ready(), "a look's bad word counts once the request's has ended"


def test_the_word_of_a_request_that_got_no_answer_is_ended_by_an_answer(health: Health) -> None:
    health.bad(NAME, "no confirm in 5 s", unanswered=True)
    health.looked(NAME, None)
    assert health.ready()


def test_a_bad_word_that_no_request_repeats_is_ended_by_a_look_in_the_end(
    health: Health, clock: PlayedClock
) -> None:
    health.bad(NAME, REFUSED)
    clock.now += REPEATED
    health.bad(NAME, REFUSED)  # the retry
    clock.now += REPEATED
    health.looked(NAME, None)
    assert not health.ready()
    clock.now += 1
    health.looked(NAME, None)
    assert health.ready(), "another process did the work"


def test_a_good_look_goes_bad_by_itself(health: Health, clock: PlayedClock) -> None:
    health.expect(NAME)
    health.looked(NAME, None)
    assert health.ready(), "a part that has not started yet waits for its first look"
    clock.now += LIMIT + 1
    assert not health.ready()


def test_a_state_is_read_each_time(health: Health) -> None:
    hanging: list[str] = []
    health.state("storage", lambda: Check(not hanging, ", ".join(hanging) or "ok"))
    assert health.ready()
    hanging.append("/dev/sda")
    assert health.checks()["storage"] == Check(False, "/dev/sda")
