# SPDX-License-Identifier: Apache-2.0
"""A test that fails by chance is run once more and named; one that is broken fails the stage."""

import os
import sys
from pathlib import Path

import pytest

from tests.lab import stage_run
from tests.lab.stage_run import Stage, StageRun, run_stages

ONCE = """
from pathlib import Path
def test_it():
    seen = Path("seen")
    tried = seen.exists()
    seen.touch()
    assert tried
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of its own."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.setattr(stage_run, "TREE", tmp_path)
    return tmp_path


def passes(*, again: bool) -> tuple[bool, list[str]]:
    """Whether the stage does, and what it names."""
    environment = dict(os.environ, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")  # they take longer than the tests
    run = StageRun(Stage("real", "", (), again=again), environment)
    return run.passes([sys.executable, "-m", "pytest", "-q", "."]), run.unsteady


@pytest.mark.parametrize(("again", "expected"), [(True, (True, ["test_one.py::test_it"])), (False, (False, []))])
def test_a_test_that_passes_at_the_second_try_is_named_where_the_stage_may_try_again(
    again: bool, expected: tuple[bool, list[str]], tree: Path
) -> None:
    (tree / "test_one.py").write_text(ONCE)
    (tree / "test_two.py").write_text("def test_fine(): pass\n")
    assert passes(again=again) == expected


def test_a_test_that_is_broken_fails_the_stage(tree: Path) -> None:
    (tree / "test_one.py").write_text("def test_it(): assert False\n")
    assert passes(again=True) == (False, [])


def test_more_than_a_few_are_no_chance(tree: Path) -> None:
    for name in "abcd":
        (tree / f"test_{name}.py").write_text(ONCE.replace("seen", f"seen_{name}"))
    assert passes(again=True) == (False, [])


def test_a_run_that_could_not_begin_is_not_repeated(tree: Path) -> None:
    (tree / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    assert passes(again=True) == (False, [])


def waits_for(other: Path, own: Path) -> tuple[str, ...]:
    """Return a command that ends once another one has begun."""
    return ("sh", "-c", f"touch {own}; echo {own.name}; until [ -e {other} ]; do sleep 0.05; done")


def test_the_stages_of_two_lanes_run_side_by_side_and_each_output_is_shown_whole(
    tree: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    left, right, last = tree / "left", tree / "right", tree / "last"
    stages = (
        Stage("lint", "", (("true",),)),
        Stage("functional", "", (waits_for(right, left), waits_for(last, left)), beside=True),
        Stage("storage", "", (waits_for(left, right),), beside=True),
        Stage("chaos", "", (waits_for(left, last),), beside=True),
    )
    assert run_stages(stages, tree, long=False, lanes=True) == 0
    output = capfd.readouterr().out.splitlines()
    assert sorted(output) == ["last", "left", "left", "right"]
    assert output.index("left") + 1 == len(output) - 1 - output[::-1].index("left")


def test_a_lane_that_is_free_takes_the_next_stage(tree: Path) -> None:
    """Three in one lane while the other one still has its first."""
    begun, ended = tree / "begun", tree / "ended"
    stages = (
        Stage("functional", "", (waits_for(ended, begun),), beside=True),
        Stage("storage", "", (("true",),), beside=True),
        Stage("guests", "", (("true",),), beside=True),
        Stage("attack", "", (("touch", str(ended)),), beside=True),
    )
    assert run_stages(stages, tree, long=False, lanes=True) == 0


def test_a_stage_that_is_run_by_itself_shows_its_output_as_it_comes(
    tree: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A person waits for it."""
    assert run_stages((Stage("demo", "", (("true",),), beside=True),), tree, long=False, lanes=True) == 0
    assert "follows at its end" not in capfd.readouterr().err


@pytest.mark.parametrize(("ci", "ran"), [("true", True), ("", False)])
def test_after_a_failure_later_stages_run_in_ci_only(
    ci: str, ran: bool, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", ci)
    stages = (Stage("unit", "", (("false",),)), Stage("demo", "", (("touch", "ran"),)))
    assert run_stages(stages, tree, long=False, lanes=False) == 1
    assert (tree / "ran").exists() == ran
