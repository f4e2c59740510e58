# SPDX-License-Identifier: Apache-2.0
"""The helper for guests (etc/guest/) on disks of many layouts, on Debian's kernel in the VM.

The short form is tools/lastmile --short, where the helper runs in a Debian guest.
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.conftest import missing
from tests.lab.lastmile.inside.layouts import LAYOUTS
from tests.lab.storage_vm.machine import Machine, lacking, running_machine
from tests.storage.checks import in_the_vm, long_form

pytestmark = [*in_the_vm, long_form]

Case = Callable[[str], dict[str, Any]]


def cells(*, grows: bool) -> list[str]:
    """The layouts that grow, or that stay."""
    return [layout.name for layout in LAYOUTS if layout.grows is grows]


CUTS: Final = [f"{layout.name}_cut_at_{step}" for layout in LAYOUTS for step in layout.steps]
MIB: Final = 1 << 20
_SILENCE: Final = 400.0  # seconds from one case to the next, boot included, on a busy machine


@pytest.fixture(scope="module")
def case() -> Iterator[Case]:
    """A VM of its own, which works through the layouts; the function reads what one case saw."""
    if (what := lacking()) is not None:
        missing(what)
    with (
        tempfile.TemporaryDirectory(prefix="eb-vm-") as directory,
        running_machine(Path(directory), program="tests.lab.lastmile.inside", form="long") as machine,
    ):
        yield partial(result, machine)


def result(machine: Machine, name: str) -> dict[str, Any]:
    """Read what one case saw; a case that failed fails the test with its traceback."""
    found = machine.result(name, silence=_SILENCE)
    assert "failed" not in found, found["failed"]
    return found


@pytest.mark.parametrize("layout", cells(grows=True))
def test_the_file_system_has_the_disks_new_size(case: Case, layout: str) -> None:
    seen = case(layout)
    assert seen["dry"]["code"] == 0
    assert "would run" in seen["dry"]["words"]
    assert not seen["dry_touched"]
    assert (seen["run"]["code"], "grown" in seen["run"]["words"]) == (0, True), seen["run"]["words"]
    assert seen["after"] > seen["before"] + 200 * MIB
    assert (seen["again"]["code"], "nothing to do" in seen["again"]["words"]) == (0, True), seen["again"]["words"]
    assert seen["after_again"] == seen["after"]
    assert not seen["clean"]


@pytest.mark.parametrize("layout", cells(grows=False))
def test_a_disk_that_cannot_follow_is_left_as_it_was_and_the_line_says_why(case: Case, layout: str) -> None:
    seen = case(layout)
    [expected] = [each.words for each in LAYOUTS if each.name == layout]
    for run in (seen["dry"], seen["run"], seen["again"]):
        assert run["code"] == 4, run["words"]
        assert "left alone" in run["words"]
        assert expected in run["words"]
    assert not seen["dry_touched"]
    assert not seen["touched"]
    assert seen["after_again"] == seen["before"]
    assert not seen["clean"]


@pytest.mark.parametrize("name", CUTS)
def test_a_run_that_was_cut_off_is_completed_by_the_next(case: Case, name: str) -> None:
    seen = case(name)
    assert seen["cut"]["code"] != 0, seen["cut"]["words"]
    assert seen["run"]["code"] == 0, seen["run"]["words"]
    assert seen["after"] > seen["before"] + 200 * MIB
    assert "nothing to do" in seen["again"]["words"]
    assert not seen["clean"]
