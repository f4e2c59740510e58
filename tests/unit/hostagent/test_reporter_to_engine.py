# SPDX-License-Identifier: Apache-2.0
"""Which way a host's messages take to the engine."""

import logging
from collections.abc import Mapping

import pytest

from bridge.core.reasons import Reason
from bridge.runtime.broker import REPORTS_EXCHANGE, REPORTS_QUEUE
from bridge.runtime.publisher import NotPublishedError
from hostagent.reporter import ToEngine


class Broker:
    """Takes what is published to the exchanges it does not refuse."""

    def __init__(self, refuses: Mapping[str, Reason]) -> None:
        self.refuses = dict(refuses)
        self.taken: list[tuple[str, str, bytes]] = []
        self.asked: list[str] = []

    def publish(self, queue: str, body: bytes, *, exchange: str = "") -> None:
        self.asked.append(exchange)
        if exchange in self.refuses:
            raise NotPublishedError(self.refuses[exchange], queue)
        self.taken.append((exchange, queue, body))


def test_they_take_the_exchange_for_them() -> None:
    broker = Broker({})
    ToEngine(broker).publish(b"x")
    assert broker.taken == [(REPORTS_EXCHANGE, REPORTS_QUEUE, b"x")]


@pytest.mark.parametrize("reason", [Reason.RETURNED, Reason.NOT_PERMITTED])
def test_an_older_engine_or_older_permissions_get_them_the_old_way(
    reason: Reason, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once, until the new way was open for a while."""
    broker = Broker({REPORTS_EXCHANGE: reason})
    way = ToEngine(broker)
    with caplog.at_level(logging.WARNING):
        for body in (b"1", b"2"):
            way.publish(body)
        assert len(caplog.messages) == 1
        del broker.refuses[REPORTS_EXCHANGE]
        way.publish(b"3")
        broker.refuses[REPORTS_EXCHANGE] = reason
        way.publish(b"4")
    assert [(exchange, body) for exchange, _, body in broker.taken] == [
        ("", b"1"), ("", b"2"), (REPORTS_EXCHANGE, b"3"), ("", b"4"),
    ]  # fmt: skip
    assert len(caplog.messages) == 2


def test_with_no_way_at_all_the_first_reason_is_said() -> None:
    """The second, that the default exchange is closed to us, is as it should be."""
    broker = Broker({REPORTS_EXCHANGE: Reason.RETURNED, "": Reason.NOT_PERMITTED})
    with pytest.raises(NotPublishedError) as told:
        ToEngine(broker).publish(b"x")
    assert told.value.reason is Reason.RETURNED
    assert broker.taken == []


@pytest.mark.parametrize("reason", [Reason.UNREACHABLE, Reason.NACKED])
def test_a_broker_that_is_away_or_full_is_not_asked_twice(reason: Reason) -> None:
    broker = Broker({REPORTS_EXCHANGE: reason})
    with pytest.raises(NotPublishedError):
        ToEngine(broker).publish(b"x")
    assert broker.asked == [REPORTS_EXCHANGE]
