# SPDX-License-Identifier: Apache-2.0
"""Output of the operator's commands, safe for its reader: a terminal, a spreadsheet, a YAML reader, a shell.

In a table, an empty list has a text and an unknown value is a dash, for the human reader. JSON, CSV and YAML have
[] and null.
"""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TextIO

import yaml
from cliff.lister import Lister
from cliff.show import ShowOne

from bridge.core.clean import clean, clean_lines, clean_value, for_shell, for_spreadsheet

_TABLE: Final = "table"
_UNKNOWN: Final = "-"


class _QuotedText(str):
    """A text of a YAML document, always in quotes. A host named 1e3 is a number to other readers than PyYAML."""

    __slots__ = ()


yaml.SafeDumper.add_representer(
    _QuotedText, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style='"')
)


class PrintableStream:
    """A stream that takes any text: characters that drive a terminal, or cannot be encoded, are replaced."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text without characters that drive a terminal."""
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        self._stream.write(clean_lines(text).encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Listing(Lister):  # type: ignore[misc,unused-ignore]
    """A command that prints a list."""

    nothing = "nothing found"
    """The text of an empty list; a command may set a text that fits its query."""

    def produce_output(
        self, parsed_args: argparse.Namespace, column_names: Sequence[str], data: Iterable[Sequence[Any]]
    ) -> int:
        """Print the rows in the requested format; return the exit code."""
        rows: list[Sequence[Any]] = [safe_row(parsed_args.formatter, row) for row in data]
        if parsed_args.formatter == _TABLE:
            rows = [[clean(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
            if not rows and not parsed_args.print_empty:
                self.app.stderr.write(f"{self.nothing}\n")
                return 0
            if not parsed_args.sort_columns:  # cliff sorts by the values
                rows = [known(row) for row in rows]
        code: int = super().produce_output(parsed_args, column_names, rows)
        return code


class Showing(ShowOne):  # type: ignore[misc,unused-ignore]
    """A command that prints one item, with its fields."""

    def produce_output(
        self, parsed_args: argparse.Namespace, column_names: Sequence[str], data: Sequence[Any]
    ) -> int:
        """Print the fields in the requested format; return the exit code."""
        row = safe_row(parsed_args.formatter, data)
        code: int = super().produce_output(
            parsed_args, column_names, known(row) if parsed_args.formatter == _TABLE else row
        )
        return code


def known(row: Sequence[Any]) -> tuple[Any, ...]:
    """Return a row for a person."""
    return tuple(_UNKNOWN if value is None else value for value in row)


def safe_row(formatter: str, row: Sequence[Any]) -> list[Any]:
    """Return a row without values that the format's reader would execute or interpret."""
    guard = _GUARDS.get(formatter)
    cells = [clean_value(cell) for cell in row]
    return cells if guard is None else [guard(cell) for cell in cells]


def _quoted(value: Any) -> Any:
    match value:
        case str():
            return _QuotedText(value)
        case list():
            return [_quoted(item) for item in value]
        case dict():
            return {_quoted(key): _quoted(item) for key, item in value.items()}
        case _:
            return value


_GUARDS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "csv": for_spreadsheet,
    "yaml": _quoted,
    "shell": for_shell,
}
