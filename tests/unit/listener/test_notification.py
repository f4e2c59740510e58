# SPDX-License-Identifier: Apache-2.0
"""The parser takes anything and raises nothing; what it hands on holds no secret."""

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core.reasons import Reason
from listener.notification import Bad, Other, Read, ResizeEnd, Row, Unreadable, parse
from tests.unit.listener.messages import (
    FIXTURES,
    REQUEST,
    SERVER,
    VOLUME,
    enveloped,
    one_server,
    opened,
    recorded,
    secrets,
)

RECORDED = sorted(path.stem for path in FIXTURES.glob("*.json"))
MAX_ROWS = 50


def read(body: bytes) -> Read:
    return parse(body, max_bytes=1 << 20, max_rows=MAX_ROWS)


def attached(server_id: str) -> Row:
    return Row(server_id=server_id, attached=True, readable=True)


def bare(**members: Any) -> bytes:
    """The recorded message without its envelope, members of it replaced; a member that is ... is left out."""
    message = opened(recorded("one_server")) | members
    return json.dumps({key: value for key, value in message.items() if value is not ...}).encode()


TWICE = "38e4617e-6915-4528-8f62-6bc65c4cf0e7"
ROWS = {
    "legacy_attach": (attached("b9c6f59d-fec7-4917-be0a-f8b9bc5a1753"),),
    "multiattach": (attached(TWICE), attached(TWICE), attached("407946e6-cf9b-404c-a1b9-62c56c8ea88f")),
    "null_instance": (Row(server_id=None, attached=True, readable=True),),
    "one_server": (attached(SERVER),),
    "two_rows_of_one_server": (attached("0285fb5c-9817-44ad-8e6c-def0329db778"),) * 2,
    "unattached": (),
    "unicode_long_metadata": (attached("808215e4-3d54-4fda-b4de-8c65705322ab"),),
}


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_message_gives_its_attachment_rows(name: str) -> None:
    end = read(recorded(name))
    assert isinstance(end, ResizeEnd)
    assert end.rows == ROWS[name]
    assert end.volume_id == opened(recorded(name))["payload"]["volume_id"]


def test_ids_of_the_message_and_of_the_users_request_are_kept() -> None:
    end = read(recorded("one_server"))
    assert isinstance(end, ResizeEnd)
    assert (end.volume_id, end.size) == (VOLUME, 2)
    assert (end.origin.request_id, end.origin.carried) == (REQUEST, REQUEST)
    assert end.origin.message_id == "b433ff73-7feb-40e9-b4f5-5e2f1b6eb8e3"
    assert end.origin.sent == "2026-11-22 11:56:25.169559"


def test_a_global_request_id_of_the_caller_goes_before_cinders_own() -> None:
    end = read(bare(_context_global_request_id="req-of-the-caller"))
    assert isinstance(end, ResizeEnd)
    assert (end.origin.carried, end.origin.request_id) == ("req-of-the-caller", REQUEST)


POISON = {
    # the 19 kinds fed to oslo.messaging's own listener, where two of them stop the batch they are in
    "not JSON at all": (b"this is not json", Reason.NOT_JSON),
    "binary": (b"\x80\x02}q\x00\xff\xfe", Reason.NOT_UTF8),
    "binary with zero bytes": (b"\x00\x01\x02\x03\xff", None),
    "JSON in invalid UTF-8": (b'{"oslo.version": "2.0", "oslo.message": "\xff\xfe"}', Reason.NOT_UTF8),
    "a list": (b"[1, 2]", Reason.NOT_AN_OBJECT),
    "a string": (b'"hello"', Reason.NOT_AN_OBJECT),
    "null": (b"null", Reason.NOT_AN_OBJECT),
    "a pickle": (b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00}\x94.", Reason.NOT_UTF8),
    "an envelope of version 9.0": (b'{"oslo.version": "9.0", "oslo.message": "{}"}', Reason.UNKNOWN_ENVELOPE),
    "an envelope around what is not JSON": (b'{"oslo.version": "2.0", "oslo.message": "{"}', Reason.NOT_JSON),
    "an envelope around a list": (b'{"oslo.version": "2.0", "oslo.message": "[]"}', Reason.NOT_AN_OBJECT),
    # and of our own
    "nothing": (b"", Reason.NOT_JSON),
    "a number": (b"1", Reason.NOT_AN_OBJECT),
    "an envelope without a version": (b'{"oslo.message": "{}"}', Reason.UNKNOWN_ENVELOPE),
    "an envelope whose version is a number": (
        b'{"oslo.version": 2.0, "oslo.message": "{}"}',
        Reason.UNKNOWN_ENVELOPE,
    ),
    "an envelope of version 20.0": (b'{"oslo.version": "20.0", "oslo.message": "{}"}', Reason.UNKNOWN_ENVELOPE),
    "an envelope around null": (b'{"oslo.version": "2.0", "oslo.message": null}', Reason.NOT_AN_OBJECT),
    "half a message": (recorded("one_server")[:3000], Reason.NOT_JSON),
    "two messages in one body": (recorded("one_server") * 2, Reason.NOT_JSON),
    "10 MB": (b'{"event_type": "volume.resize.end", "x": "' + b"a" * 10_000_000 + b'"}', Reason.TOO_LARGE),
    "a million brackets": (b"[" * 1_000_000, Reason.TOO_DEEP),
    "a million brackets in the envelope": (
        json.dumps({"oslo.version": "2.0", "oslo.message": '{"a":' * 100_000}).encode(),
        Reason.TOO_DEEP,
    ),
}


@pytest.mark.parametrize(("body", "reason"), POISON.values(), ids=POISON)
def test_what_nobody_can_read_is_unreadable_with_its_reason(body: bytes, reason: Reason | None) -> None:
    result = read(body)
    assert isinstance(result, Unreadable)
    assert result.reason is not Reason.PARSER_FAILED
    if reason is not None:  # None: what Python makes of it is Python's business
        assert result.reason is reason


OTHERS = {
    "an empty object": b"{}",
    "event_type null": bare(event_type=None),
    "event_type a list": bare(event_type=["volume.resize.end"]),
    "event_type missing": bare(event_type=...),
    "the start of a resize": bare(event_type="volume.resize.start"),
    "an event type that only begins like it": bare(event_type="volume.resize.end.soon"),
    "volume.resize.end only in the payload": enveloped(
        {"event_type": "volume.update.end", "payload": {"display_name": "volume.resize.end"}}
    ),
}


@pytest.mark.parametrize("body", OTHERS.values(), ids=OTHERS)
def test_another_notification_is_no_extend(body: bytes) -> None:
    assert read(body) == Other()


SOUND = {
    "without envelope (version 1)": bare(),
    "an envelope with the message as an object": json.dumps(
        {"oslo.version": "2.0", "oslo.message": opened(recorded("one_server"))}
    ).encode(),
    "an envelope of version 2.9": recorded("one_server").replace(b'"2.0"', b'"2.9"'),
    "with a byte order mark": b"\xef\xbb\xbf" + recorded("one_server"),
    "an unknown priority": bare(priority="urgent"),
    "a priority that is a number": bare(priority=7),
    "priority null": bare(priority=None),
    "no priority": bare(priority=...),
    "keys nobody knows": bare(tomorrow={"a": [1]}),
    "size as a string": one_server(size="2"),
    "size a boolean": one_server(size=True),
    "size NaN": one_server(size=float("nan")),
    "size infinite": one_server(size=float("inf")),
    "size negative": one_server(size=-2),
    "size of ten thousand digits": one_server(size=0).replace(b'\\"size\\": 0', b'\\"size\\": ' + b"9" * 10_000),
    "size a float out of range": one_server(size=0).replace(b'\\"size\\": 0', b'\\"size\\": 1e999999'),
    "a volume id in upper case": one_server(volume_id=VOLUME.upper()),
    "control characters in the name": one_server(display_name="a\x00\x1b[31m\r\nb"),
    "a lone surrogate in the name": one_server(display_name="\ud800"),
    "ids of the origin that are objects": bare(message_id={}, _context_request_id=[], timestamp=7),
    "an origin with line breaks": bare(
        message_id="a\nb", _context_request_id="req-\r\nX: y", timestamp="now\n", _context_global_request_id="\x00"
    ),
}


@pytest.mark.parametrize("body", SOUND.values(), ids=SOUND)
def test_an_oddity_beside_the_ids_changes_nothing(body: bytes) -> None:
    end = read(body)
    assert isinstance(end, ResizeEnd)
    assert (end.volume_id, end.rows) == (VOLUME, (attached(SERVER),))
    assert end.size in {2, None}
    origin = end.origin
    for text in (origin.message_id, origin.project, origin.request_id, origin.global_request_id, origin.sent):
        assert text is None or text.isprintable()


BAD = {
    "payload a string": (bare(payload="x"), Reason.BAD_PAYLOAD),
    "payload missing": (bare(payload=...), Reason.BAD_PAYLOAD),
    "payload null": (bare(payload=None), Reason.BAD_PAYLOAD),
    "payload a list": (bare(payload=[]), Reason.BAD_PAYLOAD),
    "volume_id no UUID": (one_server(volume_id="vol-1"), Reason.BAD_VOLUME_ID),
    "volume_id null": (one_server(volume_id=None), Reason.BAD_VOLUME_ID),
    "volume_id a number": (one_server(volume_id=7), Reason.BAD_VOLUME_ID),
    "volume_id with a line break behind it": (one_server(volume_id=VOLUME + "\n"), Reason.BAD_VOLUME_ID),
    "volume_id with a lone surrogate": (one_server(volume_id=VOLUME[:-1] + "\ud800"), Reason.BAD_VOLUME_ID),
    "volume_attachment null": (one_server(volume_attachment=None), Reason.BAD_ATTACHMENTS),
    "volume_attachment an object": (one_server(volume_attachment={}), Reason.BAD_ATTACHMENTS),
    "volume_attachment a string": (one_server(volume_attachment="[]"), Reason.BAD_ATTACHMENTS),
    "one row more than allowed": (one_server(volume_attachment=[{}] * (MAX_ROWS + 1)), Reason.TOO_MANY_ROWS),
    "100,000 rows": (one_server(volume_attachment=[1] * 100_000), Reason.TOO_MANY_ROWS),
}


@pytest.mark.parametrize(("body", "reason"), BAD.values(), ids=BAD)
def test_an_extend_nobody_can_act_on_is_bad_with_its_reason(body: bytes, reason: Reason) -> None:
    result = read(body)
    assert isinstance(result, Bad)
    assert result.reason is reason
    assert result.origin.carried == REQUEST, "a person must be able to find the user's request"
    if reason not in {Reason.BAD_PAYLOAD, Reason.BAD_VOLUME_ID}:
        assert result.volume_id == VOLUME


ODD_ROWS: dict[str, Any] = {
    "a string": "row",
    "null": None,
    "a number": 7,
    "a list": [],
    "a server id that is no UUID": {"instance_uuid": "vm-1", "attach_status": "attached"},
    "a server id without dashes": {"instance_uuid": SERVER.replace("-", ""), "attach_status": "attached"},
    "an empty server id": {"instance_uuid": "", "attach_status": "attached"},
    "a server id that is a number": {"instance_uuid": 7, "attach_status": "attached"},
    "a server id that is an object": {"instance_uuid": {}, "attach_status": "attached"},
}


@pytest.mark.parametrize("row", ODD_ROWS.values(), ids=ODD_ROWS)
def test_a_row_nobody_can_read_does_not_touch_the_row_beside_it(row: object) -> None:
    sound = {"instance_uuid": SERVER, "attach_status": "attached"}
    end = read(one_server(volume_attachment=[row, sound]))
    assert isinstance(end, ResizeEnd)
    unreadable, beside = end.rows
    assert not unreadable.readable
    assert unreadable.server_id is None
    assert beside == attached(SERVER)


NOT_ATTACHED = {
    "reserved": {"attach_status": "reserved"},
    "attaching": {"attach_status": "attaching"},
    "detaching": {"attach_status": "detaching"},
    "detached": {"attach_status": "detached"},
    "error": {"attach_status": "error_attaching"},
    "without status": {},
    "a status that is a list": {"attach_status": ["attached"]},
    "deleted": {"attach_status": "attached", "deleted": True},
    "with a detach time": {"attach_status": "attached", "detach_time": "2026-11-22T11:56:25.000000"},
}


@pytest.mark.parametrize("row", NOT_ATTACHED.values(), ids=NOT_ATTACHED)
def test_a_row_that_holds_no_attachment_now_is_not_attached(row: dict[str, Any]) -> None:
    end = read(one_server(volume_attachment=[{"instance_uuid": SERVER, **row}]))
    assert isinstance(end, ResizeEnd)
    assert end.rows == (Row(server_id=SERVER, attached=False, readable=True),)


def test_a_payload_without_attachments_is_an_extend_without_rows() -> None:
    message = opened(recorded("one_server"))
    del message["payload"]["volume_attachment"]
    end = read(enveloped(message))
    assert isinstance(end, ResizeEnd)
    assert end.rows == ()


@pytest.mark.parametrize("name", RECORDED)
def test_no_secret_of_a_recorded_message_is_in_the_result(name: str) -> None:
    hidden = secrets(opened(recorded(name)))
    assert hidden or name in {"unattached", "legacy_attach"}, "the recording holds secrets, or this proves nothing"
    shown = repr(read(recorded(name)))
    assert [secret for secret in hidden if secret in shown] == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40) | st.just(SERVER) | st.just(""),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)


def sound(result: Read) -> bool:
    """Whether a result is one of the four values and not the parser's own failure."""
    return isinstance(result, ResizeEnd | Other | Unreadable | Bad) and not (
        isinstance(result, Unreadable) and result.reason is Reason.PARSER_FAILED
    )


def replaced(value: Any, at: random.Random, new: Any) -> Any:
    """A copy of `value` with one place in it, drawn by `at`, holding `new`."""
    inside = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not inside or at.random() < 0.1:
        return new
    copy = value.copy()
    place = at.choice(inside)
    copy[place] = replaced(value[place], at, new)
    return copy


@settings(max_examples=200, deadline=None)
@given(name=st.sampled_from(RECORDED), at=st.randoms(use_true_random=False), new=JSON, wrapped=st.booleans())
def test_any_json_in_any_place_is_read_without_an_exception_and_without_a_secret(
    name: str, at: random.Random, new: Any, wrapped: bool
) -> None:
    message = opened(recorded(name))
    changed = replaced(message, at, new)
    result = read(enveloped(changed) if wrapped else json.dumps(changed).encode())
    assert sound(result)
    shown = repr(result)
    assert not [secret for secret in secrets(message) if secret in shown]


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(RECORDED),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3), st.binary(max_size=6)), min_size=1, max_size=20),
)
def test_mutated_bytes_of_real_messages_are_read_without_an_exception(
    name: str, edits: list[tuple[float, int, bytes]]
) -> None:
    body = bytearray(recorded(name))
    for where, cut, new in edits:
        start = int(where * len(body))
        body[start : start + cut] = new
        assert sound(read(bytes(body)))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_without_an_exception(body: bytes) -> None:
    assert sound(read(body))


def test_thousands_of_flipped_bytes_in_real_messages_raise_nothing() -> None:
    draw = random.Random(29)
    for _ in range(3000):
        body = bytearray(recorded(draw.choice(RECORDED)))
        for _ in range(draw.randrange(1, 4)):
            body[draw.randrange(len(body))] = draw.randrange(256)
        assert sound(read(bytes(body))), bytes(body)
