# SPDX-License-Identifier: Apache-2.0
"""Today's messages and those of version 1, each read by the other: an upgrade may begin at either end.

Versions are whole numbers: added keys raise none and are ignored by older readers; a higher one is refused by name.
"""

import hashlib
import json
from typing import Any

import pytest

from bridge.core.extend import Bytes
from bridge.core.inventory import GuestState
from bridge.core.messages import VERSION, HostMessage, Order
from bridge.core.outcome import Outcome
from bridge.core.wire import BadMessageError
from hostagent.rpc import read_cast
from tests.lab.versions import MESSAGES, frozen
from tests.unit.core.test_messages import ENCRYPTED, MESSAGE, ORDER, REPORT, TELLS_WHY_NOT

V1 = frozen(1)
FROZEN = {
    "v1/host_message.json": "0ac105e78507c37b9f52e5aa698ffde14429c3886893156054834652dfeaf0c7",
    "v1/order.json": "39269f1ae56db71a022a18200edac5b9f5f317df4a6293826571d19392404ca9",
    "v1/snapshot.py": "9d215a98d5b313bb27f84a26193a326cc8e0ea2c6c93c05aa14c0d8bb015297d",
}


@pytest.mark.parametrize("name", FROZEN)
def test_what_is_frozen_stays_as_it_is(name: str) -> None:
    """Whoever has to change these breaks agents and engines that run: make a new version instead."""
    assert hashlib.sha256((MESSAGES / name).read_bytes()).hexdigest() == FROZEN[name]


def travelled(wire: Any) -> Any:
    """As it arrives."""
    return json.loads(json.dumps(wire))


@pytest.mark.parametrize("order", [ORDER, ENCRYPTED])
def test_an_agent_of_version_1_reads_todays_orders(order: Order) -> None:
    """One that knows nothing of encryption does with an encrypted volume what it did before."""
    read = V1.Order.from_wire(travelled(order.to_wire()))
    assert (read.attempt_id, read.gen, read.target) == (ORDER.attempt_id, ORDER.gen, ORDER.target)
    assert (read.key.server_id, read.key.volume_id) == (ORDER.key.server_id, ORDER.key.volume_id)
    assert (read.connection, read.request_id) == (ORDER.connection, ORDER.request_id)


def test_an_engine_of_version_1_reads_todays_reports_and_inventories() -> None:
    assert V1.HostMessage.from_wire(travelled(MESSAGE.to_wire())).to_wire() == MESSAGE.to_wire()
    assert V1.HostMessage.from_wire(travelled(TELLS_WHY_NOT.to_wire())).inventory.capabilities == ("nfs",)


@pytest.mark.parametrize("outcome", Outcome)
def test_an_outcome_version_1_does_not_know_is_an_error_to_it_and_so_tried_again(outcome: Outcome) -> None:
    wire = travelled({**REPORT.to_wire(), "outcome": outcome.value})
    known = outcome.value in set(V1.Outcome)
    assert V1.Report.from_wire(wire).outcome == (outcome.value if known else "error")


@pytest.mark.parametrize("state", GuestState)
def test_version_1_knows_every_state_of_a_guest(state: GuestState) -> None:
    """An inventory with a state it does not know would be refused as a whole, and the host be down to it."""
    assert state.value in set(V1.GuestState)


def test_todays_agent_reads_orders_of_version_1() -> None:
    order = V1.Order(
        attempt_id=ORDER.attempt_id, key=V1.ExtendKey(ORDER.key.server_id, ORDER.key.volume_id), gen=2,
        target=ORDER.target, connection=ORDER.connection, request_id="req-a", global_request_id="req-b",
    )  # fmt: skip
    assert Order.from_wire(travelled(order.to_wire())) == ORDER


def test_todays_engine_reads_reports_of_version_1_with_every_outcome_it_has() -> None:
    for outcome in V1.Outcome:
        old = V1.HostMessage.from_wire(MESSAGE.to_wire())
        wire = travelled(old.to_wire())
        wire["reports"][0]["outcome"] = outcome.value
        assert HostMessage.from_wire(wire).reports[0].outcome.value == outcome.value


def _with_a_key_everywhere(value: Any) -> Any:
    if isinstance(value, dict):
        return {**{k: _with_a_key_everywhere(v) for k, v in value.items()}, "of_a_later_release": {"a": [1]}}
    return [_with_a_key_everywhere(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize("reader", [HostMessage, V1.HostMessage])
def test_keys_of_a_later_release_are_ignored_at_every_level(reader: Any) -> None:
    read = reader.from_wire(travelled(_with_a_key_everywhere(MESSAGE.to_wire())))
    assert read.to_wire() == MESSAGE.to_wire()


@pytest.mark.parametrize(
    ("reader", "refusal"), [(HostMessage, BadMessageError), (V1.HostMessage, V1.BadMessageError)]
)
def test_a_higher_version_is_refused_in_words(reader: Any, refusal: type[Exception]) -> None:
    with pytest.raises(refusal, match="upgrade"):
        reader.from_wire({**MESSAGE.to_wire(), "version": VERSION + 1})


def test_an_agent_works_on_no_order_of_a_higher_version_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """Nor does it report it: to the engine the order is not done, and is cast again until an agent can read it."""

    def cast(orders: Any, **more: Any) -> bytes:
        message = {"method": "extend", "args": {"orders": orders, **more}, "version": "1.0"}
        return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(message)}).encode()

    assert not read_cast(cast([ORDER.to_wire()], version=VERSION + 1))
    assert not read_cast(cast([{**ORDER.to_wire(), "version": VERSION + 1}], version=VERSION))
    assert caplog.text.count("upgrade") == 2
    later = read_cast(cast([{**ORDER.to_wire(), "target_bytes": Bytes(7)}], version=VERSION, later=True))
    assert [order.target for order in later] == [7]
