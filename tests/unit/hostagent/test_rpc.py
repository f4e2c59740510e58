# SPDX-License-Identifier: Apache-2.0
"""Orders as they come off the bus."""

import json
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from bridge.core.cast import decode_cast, encode_cast
from bridge.core.messages import VERSION, Order
from bridge.core.wire import BadMessageError
from bridge.engine.rpc import OrderSender
from bridge.runtime.broker import kombu_connection
from bridge.runtime.bus_url import MEMORY
from bridge.runtime.health import Health
from hostagent.rpc import HEALTH, OrderConsumer, read_cast
from tests.lab.waiting import until
from tests.unit.hostagent.fakes import MIB, order
from tests.unit.hostagent.test_workers import S1, V1, V2


def cast(**changes: Any) -> bytes:
    """Return a cast with other arguments, or another method."""
    message = json.loads(json.loads(encode_cast([]))["oslo.message"])
    message |= {name: changes.pop(name) for name in ("method",) if name in changes}
    message["args"] |= changes
    return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(message)}).encode()


def test_what_is_cast_is_what_is_read() -> None:
    orders = [order(S1, V1, MIB), order(S1, V2, 2 * MIB)]
    assert read_cast(encode_cast(orders)) == orders


@pytest.mark.parametrize(
    "bad",
    [
        None,
        7,
        "order",
        {},
        {**order(S1, V1, MIB).to_wire(), "target_bytes": -1},
        {**order(S1, V1, MIB).to_wire(), "target_bytes": "2 GiB"},
        {**order(S1, V1, MIB).to_wire(), "volume_id": "../../etc"},
        {**order(S1, V1, MIB).to_wire(), "connection": "secret"},
        {**order(S1, V1, MIB).to_wire(), "version": VERSION + 1},
    ],
)
def test_a_bad_order_is_logged_and_its_neighbours_are_worked_on(bad: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The log has its number, and nothing of its content."""
    good = [order(S1, V1, MIB), order(S1, V2, MIB)]
    with caplog.at_level(logging.ERROR):
        assert read_cast(cast(orders=[good[0].to_wire(), bad, good[1].to_wire()])) == good
    assert "number 2 of 3" in caplog.text
    assert "secret" not in caplog.text
    assert "/etc" not in caplog.text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"\xff\xfe",
        b"[]",
        b"[" * 100_000,
        b"{}",
        json.dumps({"oslo.version": "3.0", "oslo.message": "{}"}).encode(),
        json.dumps({"oslo.version": "2.0", "oslo.message": "{"}).encode(),
        json.dumps({"oslo.version": "2.0", "oslo.message": None}).encode(),
        json.dumps({"oslo.version": "2.0", "oslo.message": "[" * 100_000}).encode(),
        cast(method="shutdown", orders=[]),
        cast(orders=None),
        cast(orders={}),
    ],
)
def test_no_cast_of_ours_is_refused_in_words(body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(BadMessageError, match="expected"):
        decode_cast(body)
    with caplog.at_level(logging.ERROR):
        assert not read_cast(body)
    assert "could not be read" in caplog.text


@pytest.mark.parametrize("version", [VERSION + 1, "1", None, True])
def test_a_version_this_side_cannot_read_is_refused_by_name(
    version: object, caplog: pytest.LogCaptureFixture
) -> None:
    """An old agent must not guess what a new engine means."""
    with caplog.at_level(logging.ERROR):
        assert not read_cast(cast(orders=[order(S1, V1, MIB).to_wire()], version=version))
    assert "upgrade" in caplog.text


def test_arguments_of_a_newer_engine_are_ignored() -> None:
    """It may add what an old agent need not know."""
    assert len(read_cast(cast(orders=[order(S1, V1, MIB).to_wire()], hurry=True))) == 1


Consuming = Callable[[str, list[Order]], AbstractContextManager[Health]]


@pytest.fixture
def consuming() -> Consuming:
    """Run the consumer of a host over the bus of this process."""

    @contextmanager
    def run(host: str, taken: list[Order]) -> Iterator[Health]:
        health, stop = Health(), threading.Event()

        def take(orders: Sequence[Order]) -> None:
            taken.extend(orders)

        consumer = OrderConsumer(lambda: kombu_connection(MEMORY, heartbeat=0, name="test"), host, take, health)
        thread = threading.Thread(target=consumer.run, args=(stop,), daemon=True)
        thread.start()
        try:
            yield health
        finally:
            stop.set()
            thread.join(30)

    return run


def test_inside_one_process_orders_arrive_also_where_they_are_cast_first(consuming: Consuming) -> None:
    sender = OrderSender(lambda: kombu_connection(MEMORY, heartbeat=0, name="test"), health=Health())
    first, second, taken = order(S1, V1, MIB), order(S1, V2, MIB), list[Order]()
    assert sender.cast("host-of-this-test", [first]) is None
    with consuming("host-of-this-test", taken) as health:
        until(lambda: taken == [first], "the first order")
        assert sender.cast("host-of-this-test", [second]) is None
        until(lambda: taken == [first, second], "the second order")
        assert health.checks()[HEALTH].ok
