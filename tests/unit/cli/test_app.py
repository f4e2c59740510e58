# SPDX-License-Identifier: Apache-2.0
"""The shell around the operator's commands."""

import re
import shlex
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

from bridge.cli.app import NAMESPACE, OperatorApp, behind_the_command, main
from tests.lab.paths import ROOT


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--config-file a --config-dir=b event list -f json", "event list -f json --config-file a --config-dir=b"),
        ("event list --config-file a", "event list --config-file a"),
        ("-v event list", "-v event list"),
        ("--config-file", "--config-file"),
        ("", ""),
    ],
)
def test_the_configuration_may_be_named_in_front_of_the_command(given: str, meant: str) -> None:
    assert behind_the_command(given.split()) == meant.split()


def test_a_directory_of_configuration_does_as_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "10.conf").write_text(f"[journal]\nconnection = sqlite:///{tmp_path / 'nowhere.sqlite3'}\n")
    assert main(["--config-dir", str(tmp_path), "event", "list"]) == 3
    assert "nowhere.sqlite3" in capsys.readouterr().err


@pytest.mark.parametrize("point", entry_points(group=NAMESPACE), ids=lambda point: point.name)
def test_the_example_in_the_help_of_a_command_is_one(point: EntryPoint) -> None:
    """It names the command, and its options are understood."""
    name = point.name.replace("_", " ")
    parser = point.load()(OperatorApp(), None).get_parser(f"extend-bridge {name}")
    example = parser.epilog.removeprefix("Example: extend-bridge ")
    assert example.startswith(name)
    assert example in parser.format_help()
    parser.parse_args(shlex.split(example.removeprefix(name)))


def _commands_of_the_docs() -> Iterator[str]:
    """Yield what follows `extend-bridge` in the README's and the pages' examples and sentences."""
    for page in (ROOT / "README.md", *sorted((ROOT / "doc" / "source").glob("*.rst"))):
        text = page.read_text()
        for line in text.splitlines():
            if match := re.match(r"\s+extend-bridge (\S.*)", line):
                yield re.split(r"\s+#|\s[|>]\s", match[1])[0].strip()
        for quoted in re.findall(r"`+extend-bridge ([^`]+?)`+", text, re.DOTALL):
            yield " ".join(quoted.split())


@pytest.mark.parametrize("command", sorted(set(_commands_of_the_docs())))
def test_a_command_in_the_docs_exists_with_its_options(command: str) -> None:
    if command.startswith("-"):
        pytest.skip("options of the program itself")
    names = sorted((point.name.replace("_", " ") for point in entry_points(group=NAMESPACE)), key=len, reverse=True)
    name = next((name for name in names if f"{command} ".startswith(f"{name} ")), None)
    if name is None:
        assert any(each.startswith(f"{command} ") for each in names)  # a group of commands
        return
    words = command.removeprefix(name).split()
    if words:
        (point,) = (point for point in entry_points(group=NAMESPACE) if point.name == name.replace(" ", "_"))
        point.load()(OperatorApp(), None).get_parser(f"extend-bridge {name}").parse_args(words)
