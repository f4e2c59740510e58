# SPDX-License-Identifier: Apache-2.0
"""Back-off and the loop that keeps trying."""

import threading
from collections.abc import Callable

import pytest

from bridge.runtime.health import Health
from bridge.runtime.retry import Backoff, keep_trying

NONE = Backoff(first=0, cap=0)


def fails(times: int, error: Exception) -> Callable[[], str]:
    """Return a body that raises so many times, then returns."""
    left = [times]

    def body() -> str:
        if left[0]:
            left[0] -= 1
            raise error
        return "done"

    return body


def test_a_delay_stays_between_the_floor_and_the_cap() -> None:
    backoff = Backoff(first=1, cap=8, floor=0.5)
    delays = [backoff.delay(attempt) for attempt in (1, 2, 3, 4, 10, 1000) for _ in range(50)]
    assert min(delays) >= 0.5
    assert max(delays) <= 8
    assert all(Backoff(first=1, cap=600).delay(1) <= 1 for _ in range(50))


def test_the_body_is_run_again_until_it_returns() -> None:
    health = Health()
    assert keep_trying(threading.Event(), NONE, health, "part", (OSError,), fails(3, OSError("away"))) == "done"
    assert health.checks()["part"].reason == "away"
    assert not health.checks()["part"].ok


def test_an_error_that_is_not_named_ends_it() -> None:
    with pytest.raises(ValueError, match="odd"):
        keep_trying(threading.Event(), NONE, Health(), "part", (OSError,), fails(1, ValueError("odd")))


def test_a_stop_ends_the_wait() -> None:
    stop, slow = threading.Event(), Backoff(first=1000, cap=1000, floor=1000)
    threading.Timer(0.05, stop.set).start()
    assert keep_trying(stop, slow, Health(), "part", (OSError,), fails(9, OSError("away"))) is None


def test_the_health_check_shows_the_callers_words() -> None:
    health = Health()
    keep_trying(
        threading.Event(),
        NONE,
        health,
        "part",
        (OSError,),
        fails(1, OSError()),
        words=lambda _: "the broker is away",
    )
    assert health.checks()["part"].reason == "the broker is away"


def test_a_body_that_ran_for_long_starts_the_back_off_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(Backoff, "delay", lambda _self, attempt: asked.append(attempt) or 0.0)
    keep_trying(threading.Event(), NONE, Health(), "part", (OSError,), fails(3, OSError()), settled=-1)
    keep_trying(threading.Event(), NONE, Health(), "part", (OSError,), fails(3, OSError()))
    assert asked == [1, 1, 1, 1, 2, 3]
