# SPDX-License-Identifier: Apache-2.0
"""How the operator's commands show what they found: an empty table says so, and what is not known is a dash.

Only in a table, which is for a person; JSON, CSV and YAML have [] and null.
"""

import argparse
from collections.abc import Iterable, Sequence
from typing import Any, Final

from cliff.lister import Lister
from cliff.show import ShowOne

_TABLE: Final = "table"
_UNKNOWN: Final = "-"


class Listing(Lister):  # type: ignore[misc,unused-ignore]
    """A list."""

    nothing = "nothing found"
    """What an empty one means; a command may set it to fit what was asked."""

    def produce_output(
        self, parsed_args: argparse.Namespace, column_names: Sequence[str], data: Iterable[Sequence[Any]]
    ) -> int:
        """See cliff."""
        rows = list(data)
        if parsed_args.formatter == _TABLE:
            if not rows and not parsed_args.print_empty:
                self.app.stderr.write(f"{self.nothing}\n")
                return 0
            if not parsed_args.sort_columns:  # cliff sorts by the values
                rows = [known(row) for row in rows]
        code: int = super().produce_output(parsed_args, column_names, rows)
        return code


class Showing(ShowOne):  # type: ignore[misc,unused-ignore]
    """One thing."""

    def produce_output(
        self, parsed_args: argparse.Namespace, column_names: Sequence[str], data: Sequence[Any]
    ) -> int:
        """See cliff."""
        code: int = super().produce_output(
            parsed_args, column_names, known(data) if parsed_args.formatter == _TABLE else data
        )
        return code


def known(row: Sequence[Any]) -> tuple[Any, ...]:
    """A row for a person."""
    return tuple(_UNKNOWN if value is None else value for value in row)
