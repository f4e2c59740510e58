# SPDX-License-Identifier: Apache-2.0
"""The shell around the operator's commands."""

import shlex
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

from bridge.cli.app import NAMESPACE, OperatorApp, behind_the_command, main


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
