# SPDX-License-Identifier: Apache-2.0
"""`extend-bridge audit` as an operator's shell sees it: text, exit codes, files."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bridge.cli.app import main
from tests.lab.trail import extend, lines, made_id


@pytest.fixture
def log(tmp_path: Path) -> str:
    """Of one good extend."""
    path = tmp_path / "audit.log"
    path.write_text("".join(f"{line}\n" for line in lines(extend(1))))
    return str(path)


def add(log: str, result: str) -> None:
    """One more extend."""
    with Path(log).open("a") as file:
        file.writelines(f"{line}\n" for line in lines(extend(2, result=result)))


def test_check_is_silent_peace_or_one_with_names(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    """For cron."""
    assert main(["audit", "check", "--log", log]) == 0
    add(log, "parked")
    assert main(["audit", "check", "--log", log]) == 1
    assert f"parked: volume {made_id(2, 1)}" in capsys.readouterr().out


@pytest.mark.parametrize("result", ["open", "refused"])
def test_check_finds_what_is_stuck_or_behind(log: str, result: str) -> None:
    """The made-up extends are years old, or in the future of nobody."""
    add(log, result)
    assert main(["audit", "check", "--log", log, "--older-than", "0s"]) == 1


def test_report_speaks_json(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One object a row."""
    assert main(["audit", "report", "--log", log, "-f", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    (resized,) = [row for row in rows if row["Item"] == "resized"]
    assert (resized["Section"], resized["Count"]) == ("outcome", 1)


def test_trace_shows_the_lines_of_each_part_in_order(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each part's lines, in order."""
    assert main(["audit", "trace", made_id(1, 1), "--log", log, "-f", "csv", "-c", "Part"]) == 0
    assert capsys.readouterr().out.split() == ['"Part"', *['"listener"', '"api"', '"listener"'], *['"engine"'] * 3]


@pytest.mark.parametrize(
    ("argv", "code", "word"),
    [
        (["audit", "trace", "nobody"], 1, "nobody"),
        (["audit", "report", "--since", "yesterday"], 2, "yesterday"),
        (["audit", "report", "--html", "/nowhere/x.html"], 2, "/nowhere/x.html"),
    ],
)
def test_an_error_is_one_line_and_a_code(
    log: str, argv: list[str], code: int, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback."""
    assert main([*argv, "--log", log]) == code
    said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("not known")]
    assert len(said) == 1
    assert word in said[0]


def test_a_log_that_is_not_there_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2."""
    assert main(["audit", "check", "--log", "/nowhere/audit.log"]) == 2
    assert "--log" in capsys.readouterr().err


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in {"src", "href"}]


@pytest.mark.parametrize("command", ["check", "report"])
def test_a_file_that_is_no_audit_log_is_no_peace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """A cron job on the wrong file would say for ever that all is well. An empty log is a quiet night."""
    path = tmp_path / "audit.log"
    path.write_bytes(b"2026-11-23 INFO something else\n\xff\xfe\n")
    assert main(["audit", command, "--log", str(path)]) == 2
    assert "none of these files is an audit log" in capsys.readouterr().err
    path.write_bytes(b"")
    assert main(["audit", command, "--log", str(path)]) == 0


def test_the_page_stands_alone_and_escapes_what_logs_say(log: str, tmp_path: Path) -> None:
    """No script, nothing fetched, and no markup out of a log."""
    hostile = lines(extend(3))[-1].replace("h1", "<script>alert(1)</script>").replace("size_reached", "<img src=x>")
    with Path(log).open("a") as file:
        file.write(f"{hostile}\n")
    page = tmp_path / "report.html"
    assert main(["audit", "report", "--log", log, "--html", str(page), "-f", "csv"]) == 0
    parsed = _Page()
    parsed.feed(page.read_text())
    assert "script" not in parsed.tags
    assert "img" not in parsed.tags
    assert parsed.links == []
    assert parsed.tags.count("svg") >= 3
