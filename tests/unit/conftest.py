# SPDX-License-Identifier: Apache-2.0
"""A clock the test moves, and checks on it."""

import pytest

from bridge.runtime.health import Health
from tests.unit.clock import PlayedClock


@pytest.fixture
def clock() -> PlayedClock:
    """A clock that stands until the test moves it."""
    return PlayedClock()


@pytest.fixture
def health(clock: PlayedClock) -> Health:
    """Checks of a process, on that clock."""
    return Health(clock=clock)
