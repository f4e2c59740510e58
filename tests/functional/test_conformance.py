# SPDX-License-Identifier: Apache-2.0
"""tools/conformance: recorded answers through a real API process, judged; and files nobody can use."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.lab.paths import ROOT

pytestmark = pytest.mark.functional

FIXTURES = ROOT / "tests" / "fixtures" / "nova34"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The tool's own module; tools/conformance itself installs the project first."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.lab.conformance", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def exchange(**response: Any) -> dict[str, Any]:
    """A GET of the root with an answer of the test's own."""
    answer = {"status": 200, "headers": [["Content-Type", "application/json"]], "body": "{}", **response}
    return {
        "case": "planted",
        "request": {"method": "GET", "path": "/", "headers": [], "body": None},
        "response": answer,
    }


@pytest.mark.parametrize("name", ["answers.jsonl", "more.jsonl"])
def test_recorded_answers_match_or_differ_as_listed(name: str) -> None:
    done = run(FIXTURES / name, "--quiet")
    assert done.returncode == 0, done.stdout
    (line,) = done.stdout.splitlines()
    total = len((FIXTURES / name).read_text().splitlines())
    matching, _, of, _, _, known, *_ = line.split()
    assert (int(of), int(matching) + int(known)) == (total, total)
    assert line == f"{matching} of {total} answers match, {known} known differences"


def test_each_difference_is_told_by_its_header_or_key(tmp_path: Path) -> None:
    """And the exit code says that there are any."""
    path = tmp_path / "planted.jsonl"
    planted = [exchange(headers=[["X-Planted", "1"]], body='{"versions": 1}'), exchange(status=418)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in planted))
    done = run(path)
    assert done.returncode == 1
    assert "DIFFERS planted" in done.stdout
    assert "    header x-planted: absent, recorded '1'" in done.stdout
    assert "    key versions:" in done.stdout
    assert "    status: 200, recorded 418" in done.stdout
    assert done.stdout.splitlines()[-1] == "0 of 2 answers match, 0 known differences"
    told = json.loads(run(path, "--json").stdout)
    assert (told["answers"], told["match"], told["known"]) == (2, 0, 0)
    assert [row["case"] for row in told["differences"]] == ["planted", "planted"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no exchange in it"),
        ("{", "line 1: "),
        ("[]", "line 1: expected an object with an object request"),
        ('{"request": {}, "response": {}}', "line 1: expected request.method"),
        ('{"request": {"method": "GET", "path": "/", "body": 1}, "response": {"status": 200}}', "request.body"),
        ('{"request": {"method": "GET", "path": "/", "headers": [1]}, "response": {"status": 200}}', "headers"),
    ],
)
def test_a_file_nobody_can_use_is_said_in_a_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    done = run(path)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_servers_nobody_can_use_are_said_in_a_line(tmp_path: Path) -> None:
    rows = tmp_path / "rows.json"
    rows.write_text('[{"uuid": "x"}]')
    done = run(FIXTURES / "answers.jsonl", "--rows", rows)
    assert done.returncode == 2
    assert done.stderr.endswith("server 0: expected an object with uuid and host\n")
    assert run(tmp_path / "absent.jsonl").returncode == 2
