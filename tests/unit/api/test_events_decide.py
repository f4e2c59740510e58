# SPDX-License-Identifier: Apache-2.0
"""What becomes of one event, and of the request it is in."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.api.events import Code, answer, decide, servers
from bridge.core.extend import ExtendKey, ServerState, is_uuid
from bridge.core.reasons import Reason
from tests.unit.api.fakes import INVENTORY, NO_HOST, ON_HOST, ON_HOST_2, UNKNOWN, VOLUME, event

NOT_KNOWN = (Code.UNKNOWN_SERVER, Reason.UNKNOWN_SERVER)
CASES = [
    ("a server on a host", event(), Code.ACCEPTED, None),
    ("an unknown server", event(UNKNOWN), *NOT_KNOWN),
    ("an unknown server, no tag: the server is looked at first", event(UNKNOWN, None), *NOT_KNOWN),
    ("no tag", event(tag=None), Code.BAD, Reason.NO_TAG),
    ("no tag, on no host: the tag is looked at first", event(NO_HOST, None), Code.BAD, Reason.NO_TAG),
    ("a tag that is no volume", event(tag="vol-1"), Code.BAD, Reason.TAG_NO_VOLUME),
    ("a tag that would leave its place in a URL", event(tag="../../" + VOLUME), Code.BAD, Reason.TAG_NO_VOLUME),
    ("a volume id with a line break", event(tag=VOLUME + "\n"), Code.BAD, Reason.TAG_NO_VOLUME),
    ("an empty tag", event(tag=""), Code.BAD, Reason.TAG_NO_VOLUME),
    ("on no host", event(NO_HOST), Code.NO_HOST, Reason.SERVER_NO_HOST),
    ("an event that only Nova handles", event(name="network-changed"), Code.BAD, Reason.NOT_OURS),
    ("the same for an unknown server", event(UNKNOWN, name="network-changed"), *NOT_KNOWN),
    ("a server id without dashes is in no inventory", event(ON_HOST.replace("-", "")), *NOT_KNOWN),
    ("a status in the request does not matter", event(status="failed"), Code.ACCEPTED, None),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "code", "reason"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_each_event_gets_its_code_and_reason(sent: dict[str, Any], code: Code, reason: Reason | None) -> None:
    """As Nova's order of checks, and our differences."""
    decision = decide(sent, INVENTORY)
    assert (decision.code, decision.reason) == (code, reason)
    assert (decision.key is not None) == (code is Code.ACCEPTED)


def test_ids_are_compared_in_lower_case() -> None:
    """One disk has one key, however a caller spells it."""
    sent = event("ABCDEF00-1111-4111-8111-1111111111FF", VOLUME.upper())
    known = {"abcdef00-1111-4111-8111-1111111111ff": ServerState.ON_HOST}
    assert servers([sent]) == set(known)
    assert decide(sent, known).key == ExtendKey("abcdef00-1111-4111-8111-1111111111ff", VOLUME)


def test_the_answer_keeps_the_requests_own_keys_and_their_order() -> None:
    """A status in the request keeps its place and gets our value."""
    sent: list[dict[str, Any]] = [
        {"tag": VOLUME, "status": "failed", "server_uuid": ON_HOST, "name": "volume-extended"},
        {"server_uuid": ON_HOST, "name": "volume-extended"},
    ]
    status, answered = answer(sent, [decide(one, INVENTORY) for one in sent])
    assert status == 207
    assert [list(one.items()) for one in answered] == [
        [
            ("tag", VOLUME),
            ("status", "completed"),
            ("server_uuid", ON_HOST),
            ("name", sent[0]["name"]),
            ("code", 200),
        ],
        [("server_uuid", ON_HOST), ("name", "volume-extended"), ("status", "failed"), ("code", 400)],
    ]


EVENTS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["volume-extended", "network-changed"]),
        "server_uuid": st.one_of(
            st.sampled_from([ON_HOST, ON_HOST_2, NO_HOST, UNKNOWN, ON_HOST.upper(), f"{{{ON_HOST}}}"]),
            st.uuids().map(str),
        ),
    },
    optional={
        "tag": st.one_of(st.uuids().map(str), st.text(max_size=255), st.just(VOLUME)),
        "status": st.sampled_from(["completed", "failed", "in-progress"]),
    },
)


@given(st.lists(EVENTS, min_size=1, max_size=20))
def test_only_a_known_disk_on_a_host_is_accepted_and_nothing_is_lost(sent: list[dict[str, Any]]) -> None:
    """For any request: as many answers as events, each with a code; a key only for a canonical id on a host."""
    decisions = [decide(one, INVENTORY) for one in sent]
    status, answered = answer(sent, decisions)
    assert len(answered) == len(sent)
    assert (status == 200) == all(one["code"] == 200 for one in answered)
    for one, decision, reply in zip(sent, decisions, answered, strict=True):
        assert {key: reply[key] for key in one if key != "status"} == {
            k: v for k, v in one.items() if k != "status"
        }
        if decision.key is None:
            assert decision.reason is not None
            assert (reply["status"], reply["code"]) == ("failed", decision.code)
        else:
            assert reply["status"] == "completed"
            assert INVENTORY[decision.key.server_id] is ServerState.ON_HOST
            assert is_uuid(decision.key.volume_id)
            assert decision.key.volume_id == one["tag"].lower()
