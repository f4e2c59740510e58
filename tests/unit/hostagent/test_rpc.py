# SPDX-License-Identifier: Apache-2.0
"""Orders as they come off the bus."""

import logging
from collections.abc import Sequence
from typing import Any

import pytest

from bridge.core.messages import VERSION, Order
from hostagent.rpc import ExtendEndpoint
from tests.unit.hostagent.fakes import MIB, order
from tests.unit.hostagent.test_workers import S1, V1, V2


def endpoint() -> tuple[ExtendEndpoint, list[Order]]:
    taken: list[Order] = []

    def take(orders: Sequence[Order]) -> None:
        taken.extend(orders)

    return ExtendEndpoint(take), taken


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
    """In words, with its number, without its content."""
    made, taken = endpoint()
    good = [order(S1, V1, MIB), order(S1, V2, MIB)]
    with caplog.at_level(logging.ERROR):
        made.extend({}, orders=[good[0].to_wire(), bad, good[1].to_wire()], version=VERSION)
    assert taken == good
    assert "number 2 of 3" in caplog.text
    assert "secret" not in caplog.text
    assert "/etc" not in caplog.text


@pytest.mark.parametrize("arguments", [{}, {"orders": None}, {"orders": {}}, {"orders": [], "version": VERSION}])
def test_no_list_of_orders_does_nothing(arguments: dict[str, Any]) -> None:
    """And raises nothing."""
    made, taken = endpoint()
    made.extend({}, **arguments)
    assert not taken


@pytest.mark.parametrize("version", [VERSION + 1, "1", None])
def test_a_version_nobody_here_reads_is_refused_by_name(version: object, caplog: pytest.LogCaptureFixture) -> None:
    """An old agent must not guess what a new engine means."""
    made, taken = endpoint()
    with caplog.at_level(logging.ERROR):
        made.extend({}, orders=[order(S1, V1, MIB).to_wire()], version=version)
    assert not taken
    assert "upgrade" in caplog.text


def test_arguments_of_a_newer_engine_are_ignored() -> None:
    """It may add what an old agent need not know."""
    made, taken = endpoint()
    made.extend({}, orders=[order(S1, V1, MIB).to_wire()], version=VERSION, hurry=True)
    assert len(taken) == 1
