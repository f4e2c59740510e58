# SPDX-License-Identifier: Apache-2.0
"""iSER and NVMe over RDMA, in the VM."""

import pytest

from tests.storage.checks import RUNNING_CELLS, grew, healed, held_back, in_the_vm, long_form, refused_always
from tests.storage.conftest import Case

pytestmark = in_the_vm


@pytest.mark.parametrize("transport", ["iser", "nvr"])
@pytest.mark.parametrize("cell", RUNNING_CELLS)
def test_the_guest_prints_the_new_size(case: Case, transport: str, cell: str) -> None:
    grew(case(f"{transport}_{cell}"), cell.partition("_")[0])


def test_the_second_form_of_nvmes_properties(case: Case) -> None:
    """os-brick takes `RoCEv2` in each portal for RDMA."""
    grew(case("nvr_second_form"), "running")


def test_a_lun_of_iser_that_was_given_to_another_volume_is_refused_at_every_order(case: Case) -> None:
    refused_always(case("iser_reused"), "naa.")


@long_form
def test_another_lun_of_iser_than_the_connections_is_refused(case: Case) -> None:
    seen = case("iser_wrong_lun")
    assert (seen["report"]["outcome"], seen["report"]["reason"]) == ("refused", "wrong_device"), seen["report"]
    assert seen["guest"] == seen["before"]


@long_form
def test_a_session_that_is_down_is_named_and_heals(case: Case) -> None:
    seen = case("iser_session_down")
    held_back(seen, "paths_down", "down: sd")
    healed(seen)


@long_form
def test_another_namespace_than_the_connections_is_refused(case: Case) -> None:
    refused_always(case("nvr_wrong_namespace"))


@long_form
def test_with_two_portals_one_that_is_down_holds_nothing_up(case: Case) -> None:
    seen = case("nvr_two_portals")
    assert seen["controllers"] == 2
    for extend in (*seen["both"], *seen["one"]):
        grew(extend, "running")
