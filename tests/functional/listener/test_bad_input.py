# SPDX-License-Identifier: Apache-2.0
"""Everything the parser's tests call poison, through a real broker: kept with its reason, and the neighbour of each
delivered."""

import dataclasses

import pytest

from bridge.core.reasons import Reason
from bridge.runtime.transport import PARKED_QUEUE, UNREADABLE_QUEUE
from tests.functional.listener.conftest import Lab
from tests.functional.listener.test_flow import extend
from tests.lab.cinder_bus import CinderBus
from tests.unit.listener.messages import opened, recorded, secrets
from tests.unit.listener.test_parse import BAD, MAX_ROWS, POISON

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
