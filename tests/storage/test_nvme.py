# SPDX-License-Identifier: Apache-2.0
"""NVMe over TCP, in the VM."""

import pytest

from tests.storage.checks import CELLS, grew, in_the_vm, refused_always
from tests.storage.conftest import Case

pytestmark = in_the_vm


@pytest.mark.parametrize("cell", CELLS)
def test_the_guest_prints_the_new_size(case: Case, cell: str) -> None:
    """The first form of the properties, with ns_id as the number JSON makes of it."""
    grew(case(f"nvme_{cell}"), cell.partition("_")[0])


def test_the_second_form_of_the_properties(case: Case) -> None:
    """Uuid and portals, which JSON makes lists."""
    grew(case("nvme_v2"), "running")


def test_another_namespace_than_the_connections_is_refused(case: Case) -> None:
    """By the namespace's id in the first form, by its uuid in the second."""
    seen = case("nvme_wrong_namespace")
    for report in seen["reports"]:
        assert (report["outcome"], report["reason"]) == ("refused", "wrong_device")
    assert seen["guest"] == seen["before"]


def test_with_two_portals_one_that_is_down_holds_nothing_up(case: Case) -> None:
    """The kernel's own multipath: one namespace over two controllers, of which one is enough to learn the size."""
    seen = case("nvme_two_portals")
    assert seen["controllers"] == 2
    for extend in (*seen["both"], *seen["one"]):
        grew(extend, "running")


def test_a_namespace_id_given_to_another_volume_is_refused_at_every_order(case: Case) -> None:
    """The first order may meet the kernel that takes the guest's namespace away."""
    refused_always(case("nvme_reused"))
