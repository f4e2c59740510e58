# SPDX-License-Identifier: Apache-2.0
"""The byte prefilter may let noise through; it may never drop an extend."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from listener.notification import EVENT_TYPE, is_other_event
from tests.lab.paths import ROOT
from tests.lab.recording import read_recording
from tests.unit.listener.messages import FIXTURES, recorded

TEXT = st.text(max_size=30)
MEMBERS = st.dictionaries(
    TEXT.filter(lambda name: name != "event_type"), TEXT | st.integers() | st.lists(TEXT, max_size=3), max_size=5
)


@settings(max_examples=150, deadline=None)
@given(
    before=MEMBERS,
    after=MEMBERS,
    wrapped=st.booleans(),
    escaped=st.booleans(),
    spaces=st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", " :\t")]),
)
def test_no_extend_is_dropped_however_its_json_is_written(
    before: dict[str, Any], after: dict[str, Any], wrapped: bool, escaped: bool, spaces: tuple[str, str]
) -> None:
    message: object = {**before, "event_type": EVENT_TYPE, **after, "event_type_of": "volume.update.end"}
    if wrapped:
        text = json.dumps(message, ensure_ascii=escaped, separators=spaces)
        message = {"oslo.version": "2.0", "oslo.message": text}
    body = json.dumps(message, ensure_ascii=escaped, separators=spaces).encode(errors="surrogatepass")
    assert not is_other_event(body)


@pytest.mark.parametrize("name", sorted(path.stem for path in FIXTURES.glob("*.json")))
def test_no_recorded_extend_is_dropped(name: str) -> None:
    assert not is_other_event(recorded(name))


def test_every_other_recorded_notification_is_told_apart_by_its_bytes() -> None:
    bodies = [message.body for message in read_recording(ROOT / "bridge" / "standin" / "recorded.jsonl")]
    noise = [body for body in bodies if is_other_event(body)]
    assert len(noise) == 18
    assert not any(b"volume.resize.end" in body for body in noise)


@pytest.mark.parametrize(
    "body", [b"", b"\xff\x00", b"{}", b"null", b'{"oslo.version": "9.0", "oslo.message": "{}"}']
)
def test_what_is_no_notification_goes_to_the_parser(body: bytes) -> None:
    assert not is_other_event(body)


@given(st.binary(max_size=60))
def test_in_doubt_it_goes_to_the_parser(body: bytes) -> None:
    if b"event_type" not in body:
        assert not is_other_event(body)
