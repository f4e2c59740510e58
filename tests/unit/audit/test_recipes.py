# SPDX-License-Identifier: Apache-2.0
"""The recipes of the documentation work on a log as it is written."""

import re
import shutil
import subprocess
from pathlib import Path

import duckdb
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


def _statements() -> list[str]:
    """Return the statements of the page's DuckDB section, which read /var/log/extend-bridge."""
    section = PAGE.read_text().partition("DuckDB\n======")[2].partition("\nLoki\n")[0]
    text = "\n".join(line for line in section.splitlines() if line.startswith("   ") and "--" not in line)
    return [statement for statement in text.split(";") if "audit" in statement]


def test_the_statements_for_duckdb_run_on_packed_and_plain_logs(logs: Path) -> None:
    """Each gives rows where there are such extends."""
    (logs / "audit.log").rename(logs / "audit.log-20261101-1")
    subprocess.run(["gzip", str(logs / "audit.log-20261101-1")], check=True)
    for number in range(3, 5):
        for part, record in extend(number, result="open"):
            StreamAudit(part, str(logs / "audit.log")).write(record)
    view, *queries = _statements()
    rows = []
    with duckdb.connect() as database:
        database.execute(view.replace("/var/log/extend-bridge/", f"{logs}/"))
        rows = [database.execute(query).fetchall() for query in queries]
        (count,) = database.execute("SELECT count(*) FROM audit WHERE time IS NOT NULL").fetchall()
    per_hour, again, left = rows
    assert count[0] == sum(len(extend(n, result=r)) for n, r in enumerate(["failed", "resized", "resized"])) + 8
    assert [row[1:] for row in per_hour] == [(2, 100.0, 100.0)]
    assert again == []
    assert len(left) == 2
