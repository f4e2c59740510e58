# SPDX-License-Identifier: Apache-2.0
"""tools/matrix: its parts name what is there, and what pytest wrote is counted."""

from pathlib import Path

import pytest

from tests.lab import matrix
from tests.lab.matrix_results import PartResult, ReleaseResults, keep_results, kept_results, read_results
from tests.lab.paths import ROOT

EVERY = (*matrix.PARTS, *matrix.SHORT)


@pytest.mark.parametrize("part", EVERY, ids=[part.name for part in EVERY])
def test_each_path_of_a_part_is_there(part: matrix.Suite) -> None:
    words = [word.removeprefix("--ignore=") for word in part.command.split()]
    assert [word for word in words if word.startswith(("tests/", "tools/")) and not (ROOT / word).exists()] == []


def test_every_functional_test_is_in_one_part_only() -> None:
    parts = [part.command.split() for part in matrix.PARTS if "tests/functional" in part.command]
    for file in (ROOT / "tests/functional").rglob("test_*.py"):
        above = {str(path.relative_to(ROOT)) for path in (file, *file.parents) if path.is_relative_to(ROOT)}
        running = [
            words
            for words in parts
            if above & set(words) and not above & {word.removeprefix("--ignore=") for word in words if "=" in word}
        ]
        assert len(running) == 1, file


def test_what_passed_was_skipped_and_failed_is_counted(tmp_path: Path) -> None:
    results = tmp_path / "results.xml"
    results.write_text(
        "<testsuites><testsuite><testcase classname='a' name='b'/><testcase classname='a' name='c'><skipped/>"
        "</testcase><testcase classname='a' name='d'><failure/></testcase><testcase classname='a' name='e'><error/>"
        "</testcase></testsuite></testsuites>"
    )
    assert read_results(results) == (1, 1, ["a.d", "a.e"])


def test_the_results_of_parts_that_ran_at_other_times_make_one_table(tmp_path: Path) -> None:
    kept = tmp_path / "sid.json"
    keep_results(kept, [PartResult("unit", passed=2, skipped=1), PartResult("broker", failed=("t.a",))])
    keep_results(kept, [PartResult("broker", passed=3, unsteady=("t.a",), ended="2026-11-28 08:10", tree="abc+")])
    results = ReleaseResults(
        "sid", "python3 3.14", ("serving",), tuple(kept_results(kept, ["broker", "unit", "x"]))
    )
    assert results.as_table().splitlines() == [
        "versions: python3 3.14",
        "part    passed  skipped  failed  seconds  ended             tree",
        "broker       3        0       0        0  2026-11-28 08:10  abc+",
        "unit         2        1       0        0",
        "passed at the second try only: broker: t.a",
        "left out, since it cannot be built there: serving",
    ]
    assert results.last_line() == "matrix sid: 5 passed, 1 skipped, 0 failed"


def test_a_failed_part_is_named_with_its_test() -> None:
    results = ReleaseResults("sid", "", (), (PartResult("unit", failed=("t.a", "t.b")),))
    assert results.failed == ["unit: t.a", "unit: t.b"]
    assert results.last_line() == "matrix sid: 0 passed, 2 failed"
