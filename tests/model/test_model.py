# SPDX-License-Identifier: Apache-2.0
"""The model of doc/model/, checked exhaustively by Spin: as it is, and with planted bugs, which must be found."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.lab.paths import ROOT
from tests.lab.settle_table import FILE, promela

pytestmark = pytest.mark.functional

MODEL = ROOT / "doc" / "model"
BUDGETS = {"GROWTHS": 1, "CRASHES": 0, "LATE": 0, "DOUBLES": 0, "LOSSES": 0, "MIGRATIONS": 0, "LIES": 0, "STALE": 0}


def errors(directory: Path, *defined: str, **budgets: int) -> tuple[int, str]:
    """Return the number of errors that Spin finds, and the text of the first."""
    if shutil.which("spin") is None or shutil.which("gcc") is None:
        missing("Spin, or gcc")
    for file in MODEL.glob("*.pml"):
        shutil.copy(file, directory)
    flags = [f"-D{name}={value}" for name, value in {**BUDGETS, **budgets}.items()]
    flags += [f"-D{name}" for name in defined]
    for command in (
        ["spin", "-a", *flags, "extend.pml"],
        ["gcc", "-O2", "-w", "-DSAFETY", "-DMEMLIM=2000", "-o", "pan", "pan.c"],
    ):
        subprocess.run(command, cwd=directory, check=True, capture_output=True)
    said = subprocess.run(["./pan", "-m500000"], cwd=directory, check=True, capture_output=True, text=True).stdout
    assert "max search depth too small" not in said
    found = re.search(r"errors: (\d+)", said)
    assert found is not None, said
    first = re.search(r"assertion violated (.*) \(at depth", said)
    return int(found[1]), first[1] if first else ""


def test_the_moves_of_the_model_are_those_of_the_journal() -> None:
    assert FILE.read_text() == promela(), "run: python -m tests.lab.settle_table"


@pytest.mark.parametrize(
    "budgets",
    [{"CRASHES": 1}, {"LATE": 1}, {"DOUBLES": 1, "STALE": 1}, {"LOSSES": 1}, {"GROWTHS": 2}],
    ids=["a crash between any two steps", "late", "doubled, stale device", "lost notification", "two generations"],
)
def test_every_run_is_safe_and_ends_with_the_guest_told(tmp_path: Path, budgets: dict[str, int]) -> None:
    assert errors(tmp_path, **budgets) == (0, "")


ALONE = ("NO_RECONCILE",)
LONG = pytest.mark.skipif(not os.environ.get("EXTEND_BRIDGE_GRAY"), reason="the long form: tools/test --long")


@pytest.mark.parametrize(
    ("defined", "budgets"),
    [
        (ALONE, {"CRASHES": 1, "LATE": 1}),
        (ALONE, {"MIGRATIONS": 1}),
        (ALONE, {"MIGRATIONS": 1, "STALE": 1, "ENGINES": 1}),
        (ALONE, {"MIGRATIONS": 1, "LATE": 1, "ENGINES": 1}),
        pytest.param((), {"MIGRATIONS": 1, "ENGINES": 1}, marks=LONG),
        pytest.param(ALONE, {"MIGRATIONS": 1, "CRASHES": 1, "ENGINES": 1}, marks=LONG),
        pytest.param(ALONE, {"MIGRATIONS": 1, "DOUBLES": 1, "ENGINES": 1}, marks=LONG),
        pytest.param(ALONE, {"CRASHES": 1, "DOUBLES": 1}, marks=LONG),
    ],
    ids=lambda value: "+".join(value).lower() if isinstance(value, dict) else "",
)
def test_two_disturbances_at_once_or_a_migration_are_safe_and_end_with_the_guest_told(
    tmp_path: Path, defined: tuple[str, ...], budgets: dict[str, int]
) -> None:
    """Without reconcile: nothing here depends on it."""
    assert errors(tmp_path, *defined, **budgets) == (0, "")


@pytest.mark.parametrize(
    ("planted", "budgets", "violated"),
    [
        (("BREAK_ACK_EARLY", "NO_RECONCILE"), {"CRASHES": 1}, "(told==cinder)"),
        (("BREAK_NO_GENERATION",), {"GROWTHS": 2}, "(told>=need)"),
        (("BREAK_NO_GUARD",), {"GROWTHS": 2}, "(target[d]>=capacity)"),
        (("BREAK_CAST_ONLY", "NO_RECONCILE"), {"CRASHES": 1}, "(told==cinder)"),
        (("BREAK_NO_MANDATORY", "NO_RECONCILE"), {"LANES": 1}, "(told==cinder)"),
        (("BREAK_BLIND",), {"LOSSES": 1}, "(told==cinder)"),
        (("BREAK_BELIEVE",), {"LIES": 1}, "(told>=need)"),
        (("BREAK_NOT_TOLD", "NO_RECONCILE"), {"MIGRATIONS": 1, "ENGINES": 1}, "(told>=need)"),
    ],
    ids=lambda value: value[0].removeprefix("BREAK_").lower() if isinstance(value, tuple) else "",
)
def test_a_planted_bug_is_found(
    tmp_path: Path, planted: tuple[str, ...], budgets: dict[str, int], violated: str
) -> None:
    count, first = errors(tmp_path, *planted, **budgets)
    assert count > 0
    assert first == violated
