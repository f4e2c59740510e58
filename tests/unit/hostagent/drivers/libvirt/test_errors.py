# SPDX-License-Identifier: Apache-2.0
"""Libvirt's numbers, checked against the binding's own constants where it is installed."""

import pytest

from bridge.core.messages import GuestState
from hostagent import inventory, resize
from hostagent.drivers.libvirt import errors
from hostagent.drivers.libvirt.errors import connection_lost, guest_state
from tests.unit.hostagent.fakes import FakeLibvirtError

libvirt = pytest.importorskip("libvirt")


def test_the_numbers_are_libvirts() -> None:
    """They never change in libvirt; a typing error here would."""
    assert (errors._NO_DOMAIN, errors._OPERATION_TIMEOUT) == (
        libvirt.VIR_ERR_NO_DOMAIN,
        libvirt.VIR_ERR_OPERATION_TIMEOUT,
    )
    assert errors._BLOCK_COPY_ACTIVE == libvirt.VIR_ERR_BLOCK_COPY_ACTIVE
    assert errors._FROM_RPC == libvirt.VIR_FROM_RPC
    missing = {libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_OPERATION_DENIED}
    assert missing | {libvirt.VIR_ERR_INVALID_SECRET, libvirt.VIR_ERR_NO_SECRET} == errors._NO_SECRET
    assert resize._BYTES == libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES
    assert inventory._EVENTS == (
        libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
        libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED,
    )
    assert inventory._REMOVED == libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED


@pytest.mark.parametrize(
    ("state", "reason", "expected"),
    [
        ("RUNNING", 0, GuestState.ACTIVE),
        ("BLOCKED", 0, GuestState.ACTIVE),
        ("SHUTDOWN", 0, GuestState.ACTIVE),
        ("PMSUSPENDED", 0, GuestState.ACTIVE),
        ("SHUTOFF", 0, GuestState.OFF),
        ("CRASHED", 0, GuestState.ACTIVE),
        ("NOSTATE", 0, GuestState.OFF),
    ],
)
def test_states(state: str, reason: int, expected: GuestState) -> None:
    """QEMU has the disk open, or it has not."""
    assert guest_state(getattr(libvirt, f"VIR_DOMAIN_{state}"), reason) is expected


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("USER", GuestState.ACTIVE),
        ("IOERROR", GuestState.ACTIVE),
        ("MIGRATION", GuestState.INCOMING),
        ("POSTCOPY", GuestState.INCOMING),
        ("POSTCOPY_FAILED", GuestState.INCOMING),
        ("STARTING_UP", GuestState.INCOMING),
    ],
)
def test_paused_is_active_unless_the_guest_is_elsewhere(reason: str, expected: GuestState) -> None:
    """An administrator's pause, or one by a full disk, leaves the guest here."""
    assert guest_state(libvirt.VIR_DOMAIN_PAUSED, getattr(libvirt, f"VIR_DOMAIN_PAUSED_{reason}")) is expected


def test_a_missing_file_is_no_lost_connection() -> None:
    """Code 38 is also what blockInfo says of a device that is not there."""
    assert not connection_lost(FakeLibvirtError(38, "cannot stat file '/dev/x': No such file or directory"))
    assert connection_lost(FakeLibvirtError(38, "Cannot recv data: Connection reset by peer", domain=7))
    assert connection_lost(FakeLibvirtError(1, "internal error: client socket is closed"))
