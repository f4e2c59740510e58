# SPDX-License-Identifier: Apache-2.0
"""The jq recipes of the documentation work on a log as it is written."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bridge.runtime.audit import StreamAudit
from tests.conftest import missing
from tests.lab.paths import ROOT
from tests.lab.trail import extend

PAGE = ROOT / "doc" / "source" / "log-recipes.rst"
RECIPES = [line.strip() for line in PAGE.read_text().splitlines() if re.match(r"   jq ", line)]


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """A directory with an audit.log."""
    for number in range(3):
        for part, record in extend(number, took=100.0, result="resized" if number else "unsupported"):
            StreamAudit(part, str(tmp_path / "audit.log")).write(record)
    return tmp_path


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_runs(logs: Path, recipe: str) -> None:
    if shutil.which("jq") is None:
        missing("jq")
    done = subprocess.run(recipe, shell=True, cwd=logs, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    if ".outcome" in recipe or "60" in recipe:
        assert done.stdout
