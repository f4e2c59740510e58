# SPDX-License-Identifier: Apache-2.0
"""Fibre Channel, over one path and over two fabrics under dm-multipath, in the VM."""

import pytest

from tests.storage.checks import CELLS, RUNNING_CELLS, grew, healed, held_back, in_the_vm, long_form, refused_always
from tests.storage.conftest import Case

pytestmark = in_the_vm


@pytest.mark.parametrize("cell", RUNNING_CELLS)
def test_the_guest_prints_the_new_size(case: Case, cell: str) -> None:
    """One path."""
    grew(case(f"fc_{cell}"), cell.partition("_")[0])


def test_another_lun_than_the_connections_is_refused(case: Case) -> None:
    """Also where the guest's own disk has been rescanned by somebody else, and has the size of the order."""
    refused_always(case("fc_wrong_lun"), "LUN 0", "LUN 1")


def test_a_lun_that_was_given_to_another_volume_is_refused_at_every_order(case: Case) -> None:
    """The second order, the order without connection data, after a rescan, after a restart of the agent."""
    refused_always(case("fc_reused"), "naa.")


@long_form
def test_a_stranger_that_was_rescanned_before_any_order_is_refused(case: Case) -> None:
    """nova-compute, multipathd or a person did it; the device was learned from an order before."""
    refused_always(case("fc_rescanned"), "naa.")


@long_form
def test_an_array_that_publishes_the_size_late_is_asked_again(case: Case) -> None:
    grew(case("fc_late"), "running")


@long_form
def test_a_cable_that_is_out_is_named_and_heals(case: Case) -> None:
    seen = case("fc_cable_out")
    held_back(seen, "paths_down", "down: sd")
    healed(seen)


@long_form
def test_a_volume_that_became_smaller_is_stale(case: Case) -> None:
    held_back(case("fc_smaller"), "device_stale")


@long_form
@pytest.mark.parametrize("cell", CELLS)
def test_over_two_fabrics_the_guest_prints_the_new_size(case: Case, cell: str) -> None:
    grew(case(f"fcmp_{cell}"), cell.partition("_")[0])


@long_form
def test_a_map_grows_even_where_use_multipath_is_forgotten(case: Case) -> None:
    grew(case("fcmp_setting_off"), "running")


@long_form
def test_a_fabric_that_is_down_is_named_and_heals(case: Case) -> None:
    seen = case("fcmp_path_down")
    assert len(seen["paths"]) == 2
    assert len(seen["down"]) == 1
    held_back(seen, "paths_down", *seen["down"])
    healed(seen)


@long_form
def test_a_path_that_dev_loss_removed_holds_nothing_up_and_grows_when_it_is_back(case: Case) -> None:
    seen = case("fcmp_dev_loss")
    grew(seen, "running")
    assert seen["healed"]["outcome"] == "resized", seen["healed"]
    assert seen["healed_guest"] == seen["healed_wanted"]


@long_form
def test_a_map_never_outgrows_its_smallest_path(case: Case) -> None:
    seen = case("fcmp_uneven")
    held_back(seen, "device_stale", str(seen["wanted"]), str(seen["before"]))
    healed(seen)


@long_form
def test_a_map_whose_lun_was_given_to_another_volume_is_refused_at_every_order(case: Case) -> None:
    """The rescan makes multipathd take every path out of the map, which then has no name of its own."""
    refused_always(case("fcmp_reused"), "naa.")


@long_form
def test_a_maps_stranger_that_was_rescanned_before_any_order_is_refused(case: Case) -> None:
    refused_always(case("fcmp_rescanned"), "naa.")
