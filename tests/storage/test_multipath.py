# SPDX-License-Identifier: Apache-2.0
"""iSCSI over two portals under dm-multipath, in the VM."""

import pytest

from tests.storage.checks import RUNNING_CELLS, grew, healed, held_back, in_the_vm
from tests.storage.conftest import Case

pytestmark = in_the_vm


@pytest.mark.parametrize("cell", RUNNING_CELLS)
def test_the_guest_prints_the_new_size(case: Case, cell: str) -> None:
    """Each path, then the map."""
    grew(case(f"multipath_{cell}"), cell.partition("_")[0])


def test_a_map_grows_even_where_use_multipath_is_forgotten(case: Case) -> None:
    """os-brick then rescans the paths and leaves the map alone; the agent sees that and tells multipathd."""
    grew(case("multipath_setting_off"), "running")


def test_a_path_that_is_down_is_named_and_heals(case: Case) -> None:
    """Only that path is named, and the map stays as large as it is until all paths are back."""
    seen = case("multipath_path_down")
    assert len(seen["paths"]) == 2
    assert len(seen["down"]) == 1
    held_back(seen, "paths_down", *seen["down"])
    up = set(seen["paths"]) - set(seen["down"])
    assert not any(name in seen["report"]["detail"] for name in up)
    healed(seen)


def test_a_map_that_does_not_follow_its_paths_is_stale_and_heals(case: Case) -> None:
    """multipathd is gone while the paths are rescanned: the sizes of all are in the report."""
    seen = case("multipath_map_fails")
    held_back(seen, "device_stale", "dm-", str(seen["wanted"]), str(seen["before"]))
    healed(seen)


def test_a_map_never_outgrows_its_smallest_path(case: Case) -> None:
    """The array shows the new size on one path first."""
    seen = case("multipath_uneven")
    held_back(seen, "device_stale", str(seen["wanted"]), str(seen["before"]))
    healed(seen)


def test_a_path_that_was_given_to_another_volume_is_never_written_through(case: Case) -> None:
    """Behind one portal the LUN number now belongs to another volume, which the rescan shows.

    multipathd may be quicker and throw that path out: then the map has only paths of the volume and may grow. While
    it is in the map, the extend is refused.
    """
    seen = case("multipath_reused")
    assert len(set(seen["paths"].values())) == 1
    assert len(set(seen["everyone"].values())) == 2, "one path is another volume now"
    if seen["report"]["outcome"] == "resized":
        assert set(seen["left"].values()) == set(seen["paths"].values())
    else:
        assert (seen["report"]["outcome"], seen["report"]["reason"]) == ("refused", "wrong_device"), seen["report"]
        assert seen["guest"] == seen["before"]
