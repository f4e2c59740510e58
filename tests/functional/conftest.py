# SPDX-License-Identifier: Apache-2.0
"""Real parts, one of each per test session; what a test needs for itself it gets from its own virtual host."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import kombu
import pytest

from bridge.runtime.broker import kombu_connection
from tests.conftest import missing
from tests.lab.rabbitmq import RabbitNode, have_rabbitmq


@pytest.fixture(scope="session")
def rabbit() -> Iterator[RabbitNode]:
    """A private broker. Shared: a test that stops it starts it again before it ends."""
    if not have_rabbitmq():
        missing("RabbitMQ")
    with RabbitNode() as node:
        yield node


@dataclass(frozen=True, slots=True)
class Vhost:
    """A virtual host of one test's own."""

    node: RabbitNode
    name: str

    @property
    def url(self) -> str:
        """As an oslo transport_url."""
        return self.node.url_of(self.name)

    def connection(self) -> kombu.Connection:
        """A connection to it, for the test itself."""
        return kombu_connection(self.url, heartbeat=0, name="test")


@pytest.fixture
def vhost(rabbit: RabbitNode) -> Iterator[Vhost]:
    """Empty, and gone with all its queues afterwards."""
    name = rabbit.lend_vhost()
    yield Vhost(rabbit, name)
    rabbit.return_vhost(name)


@pytest.fixture
def keep() -> Iterator[Callable[[Any], Any]]:
    """Hand a disk over to have it closed after the test."""
    with ExitStack() as disks:

        def add(disk: Any) -> Any:
            disks.callback(disk.close)
            return disk

        yield add
