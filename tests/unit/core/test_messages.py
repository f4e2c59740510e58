# SPDX-License-Identifier: Apache-2.0
"""The wire form between engine and agent: golden files per version, unknown keys, hostile content."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.encryption import Encryption
from bridge.core.extend import Bytes, ExtendKey, new_id
from bridge.core.inventory import DiskSeen, DomainSeen, GuestState, Inventory
from bridge.core.messages import VERSION, HostMessage, Order, Report, StepReport
from bridge.core.outcome import Outcome
from bridge.core.wire import BadMessageError

GOLDEN = Path(__file__).parents[2] / "fixtures" / "messages"
KEY = ExtendKey("11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222")
ORDER = Order(
    attempt_id="33333333-3333-4333-8333-333333333333",
    key=KEY,
    gen=2,
    target=Bytes(2 * 1024**3),
    connection={"driver_volume_type": "iscsi", "data": {"target_lun": 1}},
    request_id="req-a",
    global_request_id="req-b",
)
REPORT = Report(
    attempt_id=ORDER.attempt_id,
    key=KEY,
    gen=2,
    outcome=Outcome.RESIZED,
    reason="size_reached",
    target=ORDER.target,
    before=Bytes(1024**3),
    after=Bytes(2 * 1024**3),
    steps=(StepReport(name="find", ok=True, seconds=0.25, detail="vda", size=1024**3),),
)
INVENTORY = Inventory(
    full=True,
    domains=(
        DomainSeen(
            server_id=KEY.server_id,
            state=GuestState.ACTIVE,
            disks=(DiskSeen(volume_id=KEY.volume_id, size=None),),
        ),
    ),
    gone=("55555555-5555-4555-8555-555555555555",),
    capabilities=("local", "file"),
)
MESSAGE = HostMessage(
    host="cmp-1",
    boot_id="44444444-4444-4444-8444-444444444444",
    seq=7,
    sent_at=1795348580.5,
    reports=(REPORT,),
    inventory=INVENTORY,
)


@pytest.mark.parametrize(("name", "message"), [("order", ORDER), ("host_message", MESSAGE)])
def test_this_version_is_the_golden_file_of_its_number(name: str, message: Order | HostMessage) -> None:
    """Whoever changes the wire form changes VERSION, or adds a key and the file."""
    golden = json.loads((GOLDEN / f"v{VERSION}" / f"{name}.json").read_text())
    assert message.to_wire() == golden
    assert type(message).from_wire(golden) == message


ENCRYPTED = replace(
    ORDER,
    encryption=Encryption(
        key_id="66666666-6666-4666-8666-666666666666",
        provider="luks2",
        control_location="front-end",
        cipher="aes-xts-plain64",
    ),
)
TELLS_WHY_NOT = replace(
    MESSAGE,
    inventory=replace(INVENTORY, capabilities=("nfs",), unsupported={"nvmeof": "not installed: nvme"}),
)


def test_a_key_that_was_added_has_a_golden_file_of_its_own() -> None:
    """The frozen files of a version stay: an agent without that key is still one of today's."""
    golden = json.loads((GOLDEN / "v1" / "host_message_unsupported.json").read_text())
    assert TELLS_WHY_NOT.to_wire() == golden
    assert HostMessage.from_wire(golden) == TELLS_WHY_NOT


def test_an_order_of_an_encrypted_volume_has_one_too() -> None:
    """It names the key, and an order without that is one of today's as well."""
    golden = json.loads((GOLDEN / "v1" / "order_encryption.json").read_text())
    assert ENCRYPTED.to_wire() == golden
    assert Order.from_wire(golden) == ENCRYPTED
    assert Order.from_wire({**golden, "encryption": None}) == ORDER


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("encryption_key_id", None),
        ("encryption_key_id", "a\x00b"),
        ("provider", 7),
        ("control_location", ""),
        ("cipher", []),
    ],
)
def test_an_encryption_nobody_may_send_is_refused_by_the_name_of_its_key(key: str, value: object) -> None:
    wire = ENCRYPTED.to_wire()
    with pytest.raises(BadMessageError, match=key):
        Order.from_wire({**wire, "encryption": {**wire["encryption"], key: value}})


@pytest.mark.parametrize("value", [None, 7, "text", ["nfs"]])
def test_why_not_in_no_form_of_ours_costs_nothing_else(value: object) -> None:
    wire = TELLS_WHY_NOT.to_wire()
    wire["inventory"]["unsupported"] = value
    read = HostMessage.from_wire(wire).inventory
    assert read is not None
    assert (read.capabilities, read.unsupported) == (("nfs",), {})


def test_keys_of_a_newer_sender_are_ignored() -> None:
    assert Order.from_wire({**ORDER.to_wire(), "priority": 9}) == ORDER


def test_a_newer_major_version_is_refused_by_name() -> None:
    with pytest.raises(BadMessageError, match="upgrade"):
        Order.from_wire({**ORDER.to_wire(), "version": VERSION + 1})


def test_an_outcome_of_a_newer_agent_reads_as_uncertain() -> None:
    assert Report.from_wire({**REPORT.to_wire(), "outcome": "teleported"}).outcome is Outcome.ERROR


def test_a_report_that_cannot_be_read_does_not_take_its_neighbours_along() -> None:
    wire = MESSAGE.to_wire()
    read = HostMessage.from_wire({**wire, "reports": [{"gen": -1}, wire["reports"][0], "x"]})
    assert (read.reports, read.unread) == ((REPORT,), 2)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("target_bytes", -1),
        ("target_bytes", "2147483648"),
        ("target_bytes", 2**63),
        ("target_bytes", True),
        ("gen", None),
        ("attempt_id", "a\x00b"),
        ("attempt_id", ""),
        ("server_id", "../../etc"),
        ("volume_id", None),
        ("connection", "text"),
    ],
)
def test_a_value_nobody_may_send_is_refused_by_the_name_of_its_key(key: str, value: object) -> None:
    with pytest.raises(BadMessageError, match=key):
        Order.from_wire({**ORDER.to_wire(), key: value})


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(data=st.data())
def test_whatever_is_put_in_place_of_a_value_is_read_or_refused_but_never_raises_else(data: st.DataObject) -> None:
    wire: dict[str, Any] = json.loads(json.dumps(MESSAGE.to_wire()))
    holder: Any = data.draw(
        st.sampled_from(
            [
                wire,
                report := wire["reports"][0],
                report["steps"][0],
                (seen := wire["inventory"]),
                seen["domains"][0],
            ]
        )
    )
    holder[data.draw(st.sampled_from(sorted(holder)))] = data.draw(_JSON)
    with contextlib.suppress(BadMessageError):
        HostMessage.from_wire(wire)


def test_an_attachment_travels_with_its_order_and_a_wrong_one_says_nothing() -> None:
    """An older engine sends none, an older agent does not look."""
    attachment_id = "55555555-5555-4555-8555-555555555555"
    told = replace(ORDER, attachment_id=attachment_id)
    assert Order.from_wire(told.to_wire()).attachment_id == attachment_id
    assert "attachment_id" not in ORDER.to_wire()
    odd: object
    for odd in ("x", 5, None, {}):
        assert Order.from_wire({**ORDER.to_wire(), "attachment_id": odd}).attachment_id is None


def test_the_words_of_a_report_are_printable() -> None:
    report = {
        "attempt_id": "a", "server_id": new_id(), "volume_id": new_id(), "gen": 1, "outcome": "resized",
        "reason": "x\x1b", "target_bytes": 1, "detail": "\u202e",
        "steps": [7, {"name": "s\x00", "detail": "\ud800"}],
    }  # fmt: skip
    told = Report.from_wire(report)
    assert (told.reason, told.detail) == ("x\ufffd", "\ufffd")
    assert [(step.name, step.detail) for step in told.steps] == [("s\ufffd", "\ufffd")]
