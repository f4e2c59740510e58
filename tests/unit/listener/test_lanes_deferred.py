# SPDX-License-Identifier: Apache-2.0
"""The slow lane's form: what goes in comes out, and whatever else lies there is told apart, never raised about."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.extend import ExtendKey
from bridge.core.reasons import Reason
from listener.lanes import Deferred, read_deferred
from listener.notification import Origin

NOW = 2000.0
JSON = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.dictionaries(st.sampled_from(["version", "server_id"]), inner),
)
KEY = ExtendKey("00000000-0000-4000-8000-000000000001", "11111111-0000-4000-8000-000000000001")
WHOLE = Deferred(
    key=KEY,
    origin=Origin(
        message_id="m-1", project="p-1", request_id="req-1", global_request_id="req-2", sent="2026-11-23 04:00:00"
    ),
    first_seen=1000.0,
    attempts=3,
    reason=Reason.EVENT_NO_HOST,
)


def changed(**fields: Any) -> bytes:
    return json.dumps({**json.loads(WHOLE.to_wire()), **fields}).encode()


IDS = st.one_of(st.none(), st.from_regex(r"\A[A-Za-z0-9._:-]{1,40}\Z"))


@given(
    origin=st.builds(Origin, message_id=IDS, project=IDS, request_id=IDS, global_request_id=IDS),
    first_seen=st.floats(0, NOW),
    attempts=st.integers(0, 10**6),
    reason=st.sampled_from(list(Reason)),
)
def test_a_deferred_event_is_read_back_as_it_was_written(
    origin: Origin, first_seen: float, attempts: int, reason: Reason
) -> None:
    deferred = Deferred(key=KEY, origin=origin, first_seen=first_seen, attempts=attempts, reason=reason)
    assert read_deferred(deferred.to_wire(), NOW) == deferred


def test_the_form_holds_ids_and_numbers_and_nothing_else() -> None:
    assert set(json.loads(WHOLE.to_wire())) == {
        "version", "reason", "server_id", "volume_id", "first_seen", "attempts", "message_id", "project",
        "request_id", "global_request_id", "sent", "traceparent",
    }  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"junk",
        b"\xff\xfe",
        b"[" * 4000,
        b"[]",
        b"null",
        changed(version=2),
        changed(version=None),
        changed(server_id="me"),
        changed(server_id=None),
        changed(volume_id=["x"]),
        changed(padding="x" * 5000),
    ],
)
def test_what_is_not_ours_is_none(body: bytes) -> None:
    assert read_deferred(body, NOW) is None


@pytest.mark.parametrize(
    ("fields", "attribute", "value"),
    [
        ({"first_seen": 9999.0}, "first_seen", NOW),  # a clock that was ahead
        ({"first_seen": -5}, "first_seen", NOW),
        ({"first_seen": "early"}, "first_seen", NOW),
        ({"first_seen": float("nan")}, "first_seen", NOW),
        ({"attempts": -1}, "attempts", 0),
        ({"attempts": True}, "attempts", 0),
        ({"attempts": 10**400}, "attempts", 0),
        ({"attempts": [1]}, "attempts", 0),
        ({"reason": "of a newer release"}, "reason", Reason.UNCERTAIN),
        ({"reason": ["x"]}, "reason", Reason.UNCERTAIN),
    ],
)
def test_a_field_that_is_not_what_it_should_be_costs_its_own_value_only(
    fields: dict[str, Any], attribute: str, value: object
) -> None:
    read = read_deferred(changed(**fields), NOW)
    assert read is not None
    assert read.key == KEY
    assert getattr(read, attribute) == value


@pytest.mark.parametrize("bad", ["a\nb", "x" * 129, 7, {"a": 1}])
def test_an_id_that_is_not_safe_in_a_header_or_a_log_is_left_out(bad: object) -> None:
    read = read_deferred(changed(request_id=bad, global_request_id=bad, project=bad, message_id=bad), NOW)
    assert read is not None
    assert read.origin == Origin(sent="2026-11-23 04:00:00")


def test_keys_of_a_newer_release_are_ignored() -> None:
    assert read_deferred(changed(colour="red"), NOW) == WHOLE


@given(st.one_of(st.binary(max_size=200), JSON.map(lambda value: json.dumps(value).encode())))
def test_reading_a_deferred_body_never_raises(body: bytes) -> None:
    read_deferred(body, NOW)
