# SPDX-License-Identifier: Apache-2.0
"""iSCSI over one path, in the VM."""

import pytest

from tests.storage.checks import CELLS, accepted_anew, grew, healed, held_back, in_the_vm, long_form, refused_always
from tests.storage.conftest import Case

pytestmark = in_the_vm


@pytest.mark.parametrize("cell", CELLS)
def test_the_guest_prints_the_new_size(case: Case, cell: str) -> None:
    """With connection data os-brick rescans; without, what sysfs says of the domain's device is rescanned."""
    grew(case(f"iscsi_{cell}"), cell.partition("_")[0])


def test_a_second_order_for_the_same_size_touches_nothing(case: Case) -> None:
    """Duplicates are normal."""
    report = case("iscsi_again")["report"]
    assert report["outcome"] == "already"
    assert [step["name"] for step in report["steps"]] == ["find", "before", "tell"]


def test_an_array_that_publishes_the_size_late_is_asked_again(case: Case) -> None:
    """os-brick rescans once and returns what is there; the agent looks and nudges within its budget."""
    seen = case("iscsi_late")
    grew(seen, "running")
    assert "wait" in [step["name"] for step in seen["report"]["steps"]]


def test_a_device_that_stays_smaller_is_stale(case: Case) -> None:
    """Nothing is asked of QEMU; tried again later."""
    seen = case("iscsi_never")
    assert seen["report"]["outcome"] == "device_stale"
    assert seen["guest"] == seen["before"]


def test_another_lun_than_the_connections_is_refused(case: Case) -> None:
    """Both have grown on the array; neither is rescanned for this order, and the guest keeps its size."""
    seen = case("iscsi_wrong_lun")
    assert (seen["report"]["outcome"], seen["report"]["reason"]) == ("refused", "wrong_device")
    assert "LUN 0" in seen["report"]["detail"]
    assert "LUN 1" in seen["report"]["detail"]
    assert seen["guest"] == seen["before"]


def test_a_session_that_is_down_is_named_and_heals(case: Case) -> None:
    """The kernel's state of the disk says it at once; reading from it would block until the session's timeout."""
    seen = case("iscsi_path_down")
    held_back(seen, "paths_down", "down: sd")
    healed(seen)


def test_a_lun_that_was_given_to_another_volume_is_refused_at_every_order(case: Case) -> None:
    """Same session, same path, another volume (CVE-2023-2088): the second order, the order without connection data,
    after a rescan by somebody else, after a restart of the agent."""
    refused_always(case("iscsi_reused"), "naa.")


@long_form
def test_a_stranger_that_was_rescanned_before_any_order_is_refused(case: Case) -> None:
    """nova-compute, multipathd or a person did it; the device was learned from an order before."""
    refused_always(case("iscsi_rescanned"), "naa.")


def test_after_a_detach_and_a_new_attach_the_numbers_new_volume_is_the_guests(case: Case) -> None:
    accepted_anew(case("iscsi_attached_anew"))
