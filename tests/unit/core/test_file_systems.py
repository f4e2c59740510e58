# SPDX-License-Identifier: Apache-2.0
"""File systems on their way from the agent to the engine: added keys only, and a tenant's words made safe."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core import limits
from bridge.core.extend import Bytes
from bridge.core.file_systems import FileSystemSeen, FileSystemStep, Follow, FsLayout, FsState
from bridge.core.messages import HostMessage, Order
from bridge.core.wire import BadMessageError
from tests.lab.versions import MESSAGES, frozen
from tests.unit.core.test_messages import KEY, MESSAGE, ORDER

V1 = frozen(1)
SEEN = FileSystemSeen(
    key=KEY,
    state=FsState.GROWN,
    reason="fs_grown",
    layout=FsLayout.PARTITION,
    follow=Follow.YES,
    kind="ext4",
    mount_point="/data",
    disk=Bytes(805306368),
    size=Bytes(701497344),
    asked=True,
    request_id="req-a",
    global_request_id="req-b",
    steps=(FileSystemStep(name="partition", ok=True, seconds=1.5, detail="growpart /dev/vdb 1 -> 0: CHANGED"),),
)
WITH = replace(MESSAGE, file_systems=(SEEN,))


def travelled(wire: Any) -> Any:
    """As it arrives."""
    return json.loads(json.dumps(wire))


def test_the_golden_message_is_what_is_sent_and_reads_as_itself() -> None:
    golden = json.loads((MESSAGES / "v1" / "host_message_file_systems.json").read_text())
    assert WITH.to_wire() == golden
    read = HostMessage.from_wire(golden)
    assert read == WITH
    assert read.file_systems[0].steps == SEEN.steps


def test_a_message_without_file_systems_is_as_an_older_agent_sends_it() -> None:
    assert "file_systems" not in MESSAGE.to_wire()
    assert "grow_file_system" not in ORDER.to_wire()


def test_an_engine_and_an_agent_of_version_1_read_the_rest() -> None:
    assert V1.HostMessage.from_wire(travelled(WITH.to_wire())).to_wire() == MESSAGE.to_wire()
    asked = replace(ORDER, grow_file_system=True)
    assert Order.from_wire(travelled(asked.to_wire())) == asked
    assert V1.Order.from_wire(travelled(asked.to_wire())).target == ORDER.target


@pytest.mark.parametrize("wish", ["true", 1, None, [], {}])
def test_only_true_asks_for_growth(wish: object) -> None:
    assert not Order.from_wire({**ORDER.to_wire(), "grow_file_system": wish}).grow_file_system


def test_a_file_system_that_cannot_be_read_leaves_its_neighbours_and_is_counted() -> None:
    wire = {**WITH.to_wire(), "file_systems": [{"server_id": "x"}, 7, SEEN.to_wire()]}
    read = HostMessage.from_wire(wire)
    assert (read.file_systems, read.unread) == ((SEEN,), 2)
    many = {**WITH.to_wire(), "file_systems": [SEEN.to_wire()] * (limits.FILE_SYSTEMS.most + 3)}
    assert HostMessage.from_wire(many).unread == 3


def test_words_of_a_newer_agent_read_as_unknown() -> None:
    wire = {**SEEN.to_wire(), "state": "flying", "layout": "cloud", "follow": "perhaps"}
    read = FileSystemSeen.from_wire(wire)
    assert (read.state, read.layout, read.follow) == (FsState.UNKNOWN, FsLayout.UNKNOWN, Follow.UNKNOWN)


@given(st.text(), st.text(), st.integers() | st.text() | st.none())
def test_a_tenants_words_are_cleaned_and_cut_and_sizes_fit(point: str, detail: str, size: object) -> None:
    wire = {
        **SEEN.to_wire(),
        "mount_point": point,
        "disk_bytes": size,
        "steps": [{"name": point, "detail": detail * 40, "seconds": size, "ok": 1}],
    }
    try:
        read = FileSystemSeen.from_wire(wire)
    except BadMessageError:
        pytest.fail("only ids and the reason can be refused")
    assert read.mount_point.isprintable() or not read.mount_point
    assert all(step.detail.isprintable() and len(step.detail) <= limits.DETAIL.most for step in read.steps)
    assert read.disk is None or 0 <= read.disk < 2**63
