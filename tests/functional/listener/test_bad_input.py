# SPDX-License-Identifier: Apache-2.0
"""Everything the parser's tests call poison, through a real broker: kept with its reason, and the neighbour of each
delivered."""

import dataclasses
import zlib
from typing import Any

import pytest

from bridge.core.reasons import Reason
from bridge.runtime.broker import PARKED_QUEUE, UNREADABLE_QUEUE
from tests.functional.listener.conftest import Lab
from tests.functional.listener.test_flow import extend
from tests.lab.cinder_bus import CinderBus
from tests.lab.odd_headers import ODD_HEADERS
from tests.unit.listener.messages import opened, recorded, secrets
from tests.unit.listener.test_notification import BAD, MAX_ROWS, POISON

pytestmark = pytest.mark.functional


def test_bad_messages_are_kept_with_their_reasons_and_each_neighbour_is_delivered(lab: Lab, bus: CinderBus) -> None:
    """Parked ones without a secret, unreadable ones as they came; both limits as the parser's tests have them."""
    lab = dataclasses.replace(lab, more={"listener": f"max_message_bytes = {1 << 20}\nmax_rows = {MAX_ROWS}"})
    unreadable = [body for body, _ in POISON.values()]
    parked = [body for body, _ in BAD.values()]
    events = []
    with lab.listening() as listener:
        listener.ready()
        for body in (*unreadable, *parked):
            neighbour, event = extend()
            bus.publish(body, content_type=None, content_encoding=None)
            bus.publish(neighbour)
            events.append(event)
        listener.settles(2 * len(events))
    assert sorted(lab.endpoint.events) == sorted(events)
    kept = lab.drain(UNREADABLE_QUEUE)
    assert sorted(body for body, _ in kept) == sorted(unreadable)
    said = {body: headers["reason"] for body, headers in kept}
    for body, reason in POISON.values():
        assert reason is None or said[body] == reason.value
    lane = lab.drain(PARKED_QUEUE)
    assert len(lane) == len(parked)
    for reason in {reason for _, reason in BAD.values()}:
        assert any(reason.value.encode() in body for body, _ in lane), f"{reason} is not said in the parked lane"
    hidden = secrets(opened(recorded("one_server")))
    assert hidden
    assert [secret for secret in hidden for body, _ in lane if secret.encode() in body] == []
    assert Reason.PARSER_FAILED.value not in said.values()


@pytest.mark.parametrize("headers", ODD_HEADERS.values(), ids=ODD_HEADERS)
def test_no_header_keeps_a_message_from_being_settled_and_its_neighbours_from_the_endpoint(
    lab: Lab, bus: CinderBus, headers: dict[str, Any]
) -> None:
    """What a client library raises while it reads would come again with every delivery, for ever."""
    before, first = extend()
    behind, second = extend()
    with lab.listening() as listener:
        bus.publish(before)
        bus.publish(b"nobody can read this", headers=headers)
        bus.publish(behind)
        listener.settles(3)
    assert sorted(lab.endpoint.events) == sorted([first, second])
    assert [body for body, _ in lab.drain(UNREADABLE_QUEUE)] == [b"nobody can read this"]


def test_a_compressed_extend_is_read_and_a_bomb_is_kept_as_it_came(lab: Lab, bus: CinderBus) -> None:
    """As with [oslo_messaging_rabbit] kombu_compression in Cinder."""
    lab = dataclasses.replace(lab, more={"listener": f"max_message_bytes = {1 << 20}"})
    small, event = extend()
    bomb = zlib.compress(b"0" * (64 << 20))
    with lab.listening() as listener:
        for body in (bomb, zlib.compress(small)):
            bus.publish(body, headers={"compression": "application/x-gzip"})
        listener.settles(2)
    assert lab.endpoint.events == [event]
    ((kept, headers),) = lab.drain(UNREADABLE_QUEUE)
    assert kept == bomb
    assert headers["reason"] == Reason.TOO_LARGE.value
