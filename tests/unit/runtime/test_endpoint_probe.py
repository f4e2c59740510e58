# SPDX-License-Identifier: Apache-2.0
"""An endpoint that goes while no event comes is not ready, and no good word outlives the looks."""

from collections.abc import Callable, Mapping
from http import HTTPStatus

import pytest

from bridge.core.reasons import Reason
from bridge.runtime.endpoint_probe import EndpointProbe
from bridge.runtime.health import LIMIT, Health
from bridge.runtime.rest import Answer, NoAnswer
from tests.unit.clock import PlayedClock

CHECKS = ("listener.endpoint", "listener.due_endpoint")
SILENT = NoAnswer(Reason.TIMED_OUT, "http://x/v2.1 gave no answer in 5 s")


def says(*answers: Answer | NoAnswer) -> Callable[[str, Mapping[str, str]], Answer | NoAnswer]:
    following = iter(answers)
    return lambda _path, _headers: next(following)


def are_ready(health: Health) -> list[bool]:
    return [health.checks()[check].ok for check in CHECKS]


def test_an_endpoint_that_goes_while_nothing_is_posted_is_not_ready(health: Health) -> None:
    probe = EndpointProbe(says(Answer(status=200), SILENT, Answer(status=200)), health, CHECKS)
    seen = []
    for _ in range(3):
        probe.look()
        seen.append(are_ready(health))
    assert seen == [[True, True], [False, False], [True, True]]


def test_the_reason_names_the_address(health: Health) -> None:
    EndpointProbe(says(SILENT), health, CHECKS).look()
    assert SILENT.detail in health.checks()[CHECKS[0]].reason


def test_a_look_that_does_not_come_back_makes_the_checks_bad_by_itself(health: Health, clock: PlayedClock) -> None:
    probe = EndpointProbe(says(Answer(status=200)), health, CHECKS)
    assert are_ready(health) == [True, True]
    probe.look()
    clock.now += LIMIT + 1
    assert are_ready(health) == [False, False]


@pytest.mark.parametrize(
    ("status", "works"), [(401, False), (404, True), (405, True), (501, True), (502, False), (503, False)]
)
def test_a_proxy_may_hide_the_document_but_not_that_its_server_is_gone(
    status: int, works: bool, health: Health
) -> None:
    EndpointProbe(says(Answer(status=HTTPStatus(status))), health, CHECKS).look()
    assert are_ready(health) == [works, works]
