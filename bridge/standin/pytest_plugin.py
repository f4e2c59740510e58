# SPDX-License-Identifier: Apache-2.0
"""pytest fixtures for tests of any listener to Cinder's notifications, installed with the distribution.

`cinder_bus`: a bus with Cinder's notifications, in this process or on a broker (--cinder-bus-url).
`cinder_standin`: a Cinder that answers for volumes and attachments.
A fixture imports its modules only when a test requests the fixture.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from bridge.standin.cinder import RunningStandIn
    from bridge.standin.notifications import NotificationBus


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the bus."""
    group = parser.getgroup("extend-bridge")
    group.addoption(
        "--cinder-bus-url",
        default="memory://",
        metavar="URL",
        help="transport_url of the bus that the fixture cinder_bus publishes on (default: inside this process)",
    )
    group.addoption(
        "--cinder-bus-topic",
        default="notifications",
        metavar="TOPIC",
        help="topic of the notifications (default: notifications)",
    )


@pytest.fixture
def cinder_bus(request: pytest.FixtureRequest) -> "Iterator[NotificationBus]":
    """Publish notifications like Cinder: `extend(volume, size, server)`, or `play()` for recorded notifications."""
    import bridge.runtime.threads  # noqa: F401, PLC0415 - before oslo.messaging
    from bridge.standin.notifications import NotificationBus  # noqa: PLC0415

    bus = NotificationBus(request.config.option.cinder_bus_url, request.config.option.cinder_bus_topic)
    yield bus
    bus.close()


@pytest.fixture
def cinder_standin() -> "Iterator[RunningStandIn]":
    """Serve a Cinder on loopback: `add_volume(...)`, `extend(...)`, `url`."""
    from bridge.standin.cinder import run_standin  # noqa: PLC0415

    with run_standin() as running:
        yield running
