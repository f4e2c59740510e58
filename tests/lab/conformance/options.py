# SPDX-License-Identifier: Apache-2.0
"""What tools/conformance is asked for. Standard library only: read before anything is installed."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.lab.conformance.exchange import BadInputError, Exchange, read_exchanges, read_rows

TOOL: Final = "tools/conformance"
EXIT_USAGE: Final = 2
_FIXTURE_ROWS: Final = Path(__file__).resolve().parents[2] / "fixtures" / "nova34" / "rows.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Paths are absolute."""

    file: Path
    rows: Path
    json: bool
    quiet: bool

    def argv(self) -> list[str]:
        """The same again, for the process in the virtualenv."""
        return [
            str(self.file),
            "--rows",
            str(self.rows),
            *(["--json"] if self.json else []),
            *(["--quiet"] if self.quiet else []),
        ]


def options(argv: Sequence[str] | None = None) -> Options:
    """Parse the command line; a wrong one ends the process with status 2."""
    parser = argparse.ArgumentParser(
        prog=TOOL,
        description="Puts recorded requests (one JSON object a line: case, request, response) through an API "
        "process of its own, on SQLite, and compares the answers with the recorded ones. Says what differs, and "
        "whether bridge/api/differences.yaml knows of it. Last line: `N of M answers match, D known differences`. "
        "Exit code 0 when nothing else differs, 1 when something does, 2 for files nobody can use.",
        epilog=f"Example: {TOOL} tests/fixtures/nova34/answers.jsonl",
    )
    parser.add_argument("file", type=Path, metavar="FILE.jsonl")
    parser.add_argument(
        "--rows",
        type=Path,
        metavar="ROWS.json",
        help="the servers behind the recording, a list of objects with uuid, host (null: on none) and key; by "
        "default rows.json beside the file, else the one in tests/fixtures/nova34",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument("--quiet", action="store_true", help="leave out the lines of known differences")
    found = parser.parse_args(argv)
    beside = found.file.parent / "rows.json"
    rows = found.rows or (beside if beside.exists() else _FIXTURE_ROWS)
    return Options(file=found.file.absolute(), rows=rows.absolute(), json=found.json, quiet=found.quiet)


def read(asked: Options) -> tuple[list[Exchange], Mapping[str, Mapping[str, Any]]] | None:
    """Exchanges and servers; None, and a line on standard error, for files nobody can use."""
    try:
        return read_exchanges(asked.file), read_rows(asked.rows)
    except BadInputError as ex:
        sys.stderr.write(f"{TOOL}: {ex}\n")
        return None
