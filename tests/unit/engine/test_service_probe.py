# SPDX-License-Identifier: Apache-2.0
"""A service nothing asks for is looked at all the same, and no good word outlives the looks."""

import threading
from http import HTTPStatus
from typing import Any

import pytest

from bridge.core.reasons import Reason
from bridge.engine.cinder import CinderReader
from bridge.engine.nova import NovaReader
from bridge.engine.upstream import ServiceProbe, Trouble
from bridge.runtime.health import LIMIT, Health
from bridge.runtime.rest import Answer
from tests.unit.clock import PlayedClock


def test_a_service_that_goes_while_nothing_is_due_is_not_ready(clock: PlayedClock) -> None:
    health, answers = (
        Health(clock=clock),
        iter([None, Trouble(Reason.CINDER_UNREACHABLE, "http://x: refused"), None]),
    )
    probe = ServiceProbe("engine.cinder", lambda: next(answers), health)
    seen = []
    for _ in range(3):
        probe.look()
        seen.append(health.checks()["engine.cinder"])
    assert [check.ok for check in seen] == [True, False, True]
    assert "http://x: refused" in seen[1].reason


def test_a_look_that_does_not_come_back_makes_the_check_bad_by_itself(clock: PlayedClock) -> None:
    health = Health(clock=clock)
    ServiceProbe("engine.cinder", lambda: None, health).look()
    clock.now += LIMIT + 1
    assert not health.checks()["engine.cinder"].ok
    fresh = Health(clock=clock)
    ServiceProbe("engine.nova", lambda: None, fresh)
    assert fresh.checks()["engine.nova"].ok
    clock.now += LIMIT + 1
    assert not fresh.checks()["engine.nova"].ok


def test_the_probe_looks_until_it_is_stopped(clock: PlayedClock) -> None:
    stop, looks = threading.Event(), []

    def check() -> None:
        looks.append(1)
        if len(looks) == 3:
            stop.set()

    ServiceProbe("engine.cinder", check, Health(clock=clock), every=0.001).run(stop)
    assert len(looks) == 3


@pytest.mark.parametrize("reader", [CinderReader, NovaReader])
@pytest.mark.parametrize("status", [HTTPStatus.OK, HTTPStatus.UNAUTHORIZED, HTTPStatus.BAD_GATEWAY])
def test_what_is_asked_needs_no_rights_of_an_admin(reader: Any, status: HTTPStatus) -> None:
    paths: list[str] = []

    class Rest:
        def get(self, path: str, _headers: object) -> Answer:
            paths.append(path)
            return Answer(status=status, body={})

    trouble = reader(Rest()).check()
    assert (trouble is None) == (status is HTTPStatus.OK)
    assert "all_tenants" not in paths[0]
