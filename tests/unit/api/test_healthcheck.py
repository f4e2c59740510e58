# SPDX-License-Identifier: Apache-2.0
"""What load balancers are told while the journal answers, refuses, and says nothing at all."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import falcon
import pytest
from falcon import testing

from bridge.api.healthcheck import Healthcheck
from bridge.core.errors import JournalUnavailableError
from tests.unit.clock import PlayedClock


class Journal:
    """Answers at once, or not before it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.wrong: str | None = None
        self.hangs = False
        self.hanging = threading.Event()
        self.go_on = threading.Event()

    def __call__(self) -> str | None:
        self.asked += 1
        if self.hangs:
            self.hanging.set()
            assert self.go_on.wait(120)
        if self.wrong == "away":
            raise JournalUnavailableError("away")
        return self.wrong


@pytest.fixture
def journal() -> Iterator[Journal]:
    running = Journal()
    yield running
    running.go_on.set()


def said(check: Healthcheck) -> str:
    resp = falcon.Response()
    check.on_get(testing.create_req(), resp)
    assert (resp.status == "200 OK") is (resp.text == "OK")
    return str(resp.text)


def test_the_journal_is_asked_once_a_second(journal: Journal) -> None:
    """Balancers ask often, and from everywhere."""
    clock = PlayedClock(time.monotonic())
    check = Healthcheck(journal, clock=clock)
    assert [said(check) for _ in range(5)] == ["OK"] * 5
    assert journal.asked == 1
    journal.wrong = "run db sync"
    clock.now += 1
    assert said(check) == "JOURNAL UNAVAILABLE"
    journal.wrong = "away"
    clock.now += 1
    assert said(check) == "JOURNAL UNAVAILABLE"
    journal.wrong = None
    clock.now += 1
    assert said(check) == "OK"


def test_a_silent_journal_holds_one_thread_and_goes_bad_by_itself(journal: Journal) -> None:
    """The others answer by the last word, for ten seconds."""
    clock = PlayedClock(time.monotonic())
    check = Healthcheck(journal, clock=clock)
    assert said(check) == "OK"
    journal.hangs = True
    clock.now += 2
    with ThreadPoolExecutor() as pool:
        asking = pool.submit(said, check)
        assert journal.hanging.wait(120)
        assert said(check) == "OK"
        clock.now += 9
        assert said(check) == "JOURNAL UNAVAILABLE"
        assert journal.asked == 2
        journal.go_on.set()
        assert asking.result(30) == "OK"
    assert said(check) == "OK"


def test_after_a_long_pause_two_that_ask_at_once_get_the_same_answer(journal: Journal) -> None:
    """The second waits a moment for the answer that the first has asked for."""
    check = Healthcheck(journal)
    journal.hangs = True
    with ThreadPoolExecutor() as pool:
        first = pool.submit(said, check)
        assert journal.hanging.wait(120)
        second = pool.submit(said, check)
        threading.Timer(0.2, journal.go_on.set).start()
        assert (first.result(30), second.result(30)) == ("OK", "OK")
    assert journal.asked == 1
