# SPDX-License-Identifier: Apache-2.0
"""tools/bench: runs the figures and prints the table."""

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import bridge.runtime.threads  # noqa: F401

# isort: split
from tests.benchmarks import control_plane, listening
from tests.benchmarks.measure import Row, calibration, table

_PARTS = {"control-plane": control_plane.rows, "listener": listening.rows}


def main(argv: Sequence[str] | None = None) -> int:
    """0 when every budget is met, else 1."""
    parser = argparse.ArgumentParser(
        prog="tools/bench",
        description="CPU per item of each stage, beside the bare library in the same run, with the budgets to hold "
        "to. A calibration loop is printed before and after: the machine changes its speed.",
        epilog="Example: tools/bench control-plane --json",
    )
    parser.add_argument("part", nargs="*", metavar="PART", help=f"of {', '.join(_PARTS)}; all by default")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    options = parser.parse_args(argv)
    if unknown := sorted(set(options.part) - set(_PARTS)):
        parser.error(f"no part named {', '.join(unknown)}; there are {', '.join(_PARTS)}")
    logging.disable(logging.ERROR)
    before = calibration()
    rows: list[Row] = []
    for name in options.part or _PARTS:
        sys.stderr.write(f"{name} ...\n")
        with tempfile.TemporaryDirectory(prefix="eb-bench-") as directory:
            rows += _PARTS[name](Path(directory))
    after = calibration()
    if options.json:
        sys.stdout.write(json.dumps({"calibration_ms": [before, after], "rows": [asdict(r) for r in rows]}) + "\n")
    else:
        sys.stdout.write(f"{table(rows)}\ncalibration loop: {before:.0f} ms before, {after:.0f} ms after\n")
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
