# SPDX-License-Identifier: Apache-2.0
"""A test that fails by chance is run once more and named; one that is broken fails the stage."""

import os
import sys
from pathlib import Path

import pytest

from tests.lab import stages
from tests.lab.stages import Stage

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
    monkeypatch.setattr(stages, "TREE", tmp_path)
    return tmp_path


def passes(*, again: bool) -> tuple[bool, list[str]]:
    """Whether the stage does, and what it names."""
    unsteady: list[str] = []
    environment = dict(os.environ, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")  # they take longer than the tests
    command = [sys.executable, "-m", "pytest", "-q", "."]
    ok = stages._passes(Stage("real", "", (), again=again), command, environment, unsteady)
    return ok, unsteady


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
