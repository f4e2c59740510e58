# SPDX-License-Identifier: Apache-2.0
"""Our own bus is looked at while nothing is sent, and no good word of those who send outlives the looks."""

import kombu
import pytest

from bridge.core.reasons import Reason
from bridge.engine.rpc import CASTS, OrderSender
from bridge.runtime.broker import kombu_connection
from bridge.runtime.bus_probe import BusProbe
from bridge.runtime.bus_url import MEMORY
from bridge.runtime.health import LIMIT, Health
from bridge.runtime.publisher import BusPublisher, NotPublishedError
from tests.lab.ports import steady_port
from tests.unit.clock import PlayedClock


class _Bus:
    """Answers, or does not."""

    reason: Reason | None = None

    def publish(self, queue: str, _body: bytes, **_options: object) -> None:
        if self.reason is not None:
            raise NotPublishedError(self.reason, queue)


@pytest.fixture
def sender(monkeypatch: pytest.MonkeyPatch, health: Health, clock: PlayedClock) -> tuple[OrderSender, _Bus]:
    bus = _Bus()
    monkeypatch.setattr(BusPublisher, "publish", bus.publish)
    return OrderSender(_memory, health=health, clock=clock), bus


def _memory() -> kombu.Connection:
    return kombu_connection(MEMORY, heartbeat=0, name="test")


def _gone() -> kombu.Connection:
    return kombu_connection(f"rabbit://guest:guest@127.0.0.1:{steady_port()}/", heartbeat=0, name="test")


def test_a_bus_that_goes_while_nothing_is_sent_is_not_ready_in_words(health: Health) -> None:
    checks = ["listener.lanes", "listener.due_lanes"]
    BusProbe(_memory, health, checks, words="nothing can be put into the lanes").look()
    assert all(health.checks()[check].ok for check in checks)
    BusProbe(_gone, health, checks, words="nothing can be put into the lanes").look()
    assert not any(health.checks()[check].ok for check in checks)
    assert health.checks()[checks[0]].reason.startswith("nothing can be put into the lanes: ")


def test_a_word_of_one_who_sent_ends_without_looks(
    sender: tuple[OrderSender, _Bus], health: Health, clock: PlayedClock
) -> None:
    assert health.checks()[CASTS].ok
    assert sender[0].cast("host", []) is None
    clock.now += LIMIT
    assert health.checks()[CASTS].ok
    clock.now += 1
    assert not health.checks()[CASTS].ok


@pytest.mark.parametrize(
    ("reason", "mended"),
    [(Reason.BUS_UNREACHABLE, True), (Reason.BUS_BLOCKED, False), (Reason.NOT_PERMITTED, False)],
)
def test_a_look_ends_the_word_of_an_order_that_got_no_answer_and_no_other(
    sender: tuple[OrderSender, _Bus], health: Health, reason: Reason, mended: bool
) -> None:
    """A broker that blocks publishers, or refuses an exchange, answers a look."""
    sender[1].reason = reason
    assert sender[0].cast("host", []) is not None
    assert not health.checks()[CASTS].ok
    BusProbe(_memory, health, [CASTS], words="no orders").look()
    assert health.checks()[CASTS].ok == mended
