# SPDX-License-Identifier: Apache-2.0
"""tools/conformance, once everything is installed."""

import bridge.runtime.threads  # noqa: F401 - first of all

# isort: split
import json
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from tests.lab.conformance import wire
from tests.lab.conformance.exchange import Exchange
from tests.lab.conformance.judge import Result, authority, judge, tokens
from tests.lab.conformance.known import Rows
from tests.lab.conformance.options import EXIT_USAGE, TOOL, Options, options, read
from tests.lab.conformance.site import Site, SiteError

EXIT_UNREACHABLE: Final = 3


def main(argv: Sequence[str] | None = None) -> int:
    """See options.py for the exit codes."""
    asked = options(argv)
    given = read(asked)
    if given is None:
        return EXIT_USAGE
    exchanges, rows = given
    try:
        results = _run(exchanges, rows)
    except SiteError as ex:
        sys.stderr.write(f"{TOOL}: {ex}\n")
        return EXIT_UNREACHABLE
    sys.stdout.write(_as_json(results) if asked.json else _as_lines(results, asked))
    return 1 if any(result.found and not result.known for result in results) else 0


def _run(exchanges: Sequence[Exchange], rows: Rows) -> list[Result]:
    with (
        tempfile.TemporaryDirectory(prefix="eb-conformance-") as directory,
        Site(Path(directory), rows, tokens(exchanges)) as site,
    ):
        send = partial(wire.send, host="127.0.0.1", port=site.port, authority=authority(exchanges))
        return [judge(exchange, rows, send) for exchange in exchanges]


def _counts(results: Sequence[Result]) -> tuple[int, int]:
    return sum(not r.found for r in results), sum(bool(r.known) for r in results)


def _as_lines(results: Sequence[Result], asked: Options) -> str:
    lines = []
    for result in results:
        if result.found and not (result.known and asked.quiet):
            said = f"known ({', '.join(result.known)})" if result.known else "DIFFERS"
            lines += [f"{said} {result.case}", *(f"    {what}" for what in result.found)]
    matching, known = _counts(results)
    lines.append(f"{matching} of {len(results)} answers match, {known} known differences")
    return "".join(f"{line}\n" for line in lines)


def _as_json(results: Sequence[Result]) -> str:
    matching, known = _counts(results)
    differing = [
        {"case": result.case, "known": list(result.known), "differs": list(result.found)}
        for result in results
        if result.found
    ]
    whole = {"answers": len(results), "match": matching, "known": known, "differences": differing}
    return json.dumps(whole) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
