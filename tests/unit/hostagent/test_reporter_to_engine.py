# SPDX-License-Identifier: Apache-2.0
"""The way of a host's messages to the engine, and the older ways where that is closed."""

import logging
from collections.abc import Mapping
from typing import Final

import pytest

from bridge.core.reasons import Reason
from bridge.runtime.broker import HOSTS_EXCHANGE, REPORTS_EXCHANGE, REPORTS_QUEUE
from bridge.runtime.publisher import NotPublishedError
from hostagent.reporter import ToEngine

HOST: Final = "cmp-1"


class Broker:
    """Takes what is published to the exchanges it does not refuse."""

    def __init__(self, refuses: Mapping[str, Reason]) -> None:
        self.refuses = dict(refuses)
        self.taken: list[tuple[str, str | None, bytes]] = []
        self.asked: list[str] = []

    def publish(self, queue: str, body: bytes, *, exchange: str = "", routing_key: str | None = None) -> None:
        assert queue == REPORTS_QUEUE
        self.asked.append(exchange)
        if exchange in self.refuses:
            raise NotPublishedError(self.refuses[exchange], queue)
        self.taken.append((exchange, routing_key, body))


def test_they_take_the_exchange_that_proves_the_hosts_name() -> None:
    broker = Broker({})
    ToEngine(broker, HOST).publish(b"x")
    assert broker.taken == [(HOSTS_EXCHANGE, HOST, b"x")]


@pytest.mark.parametrize("reason", [Reason.RETURNED, Reason.NOT_PERMITTED])
@pytest.mark.parametrize("also", [[], [REPORTS_EXCHANGE]], ids=["0.1.0", "before 0.1.0"])
def test_an_older_engine_or_older_permissions_get_them_the_old_way(
    reason: Reason, also: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Said once, until the proper way was open for a while."""
    closed = dict.fromkeys((HOSTS_EXCHANGE, *also), reason)
    old = "" if also else REPORTS_EXCHANGE
    broker = Broker(closed)
    way = ToEngine(broker, HOST)
    with caplog.at_level(logging.WARNING):
        for body in (b"1", b"2"):
            way.publish(body)
        assert len(caplog.messages) == 1
        broker.refuses.clear()
        way.publish(b"3")
        broker.refuses.update(closed)
        way.publish(b"4")
    assert [(exchange, body) for exchange, _, body in broker.taken] == [
        (old, b"1"), (old, b"2"), (HOSTS_EXCHANGE, b"3"), (old, b"4"),
    ]  # fmt: skip
    assert len(caplog.messages) == 2


def test_with_no_way_at_all_the_first_reason_is_said() -> None:
    """The others, that the older ways are closed to us, are as they should be."""
    denied = dict.fromkeys((REPORTS_EXCHANGE, ""), Reason.NOT_PERMITTED)
    broker = Broker({HOSTS_EXCHANGE: Reason.RETURNED, **denied})
    with pytest.raises(NotPublishedError) as told:
        ToEngine(broker, HOST).publish(b"x")
    assert told.value.reason is Reason.RETURNED
    assert broker.taken == []


@pytest.mark.parametrize("reason", [Reason.UNREACHABLE, Reason.NACKED])
def test_a_broker_that_is_away_or_full_is_not_asked_twice(reason: Reason) -> None:
    broker = Broker({HOSTS_EXCHANGE: reason})
    with pytest.raises(NotPublishedError):
        ToEngine(broker, HOST).publish(b"x")
    assert broker.asked == [HOSTS_EXCHANGE]
