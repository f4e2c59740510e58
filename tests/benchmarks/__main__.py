# SPDX-License-Identifier: Apache-2.0
"""tools/bench: runs the benches and prints the table."""

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

import bridge.runtime.threads  # noqa: F401

# isort: split
from tests.benchmarks.measure import Row, calibration, table
from tests.benchmarks.registry import BENCHES
from tests.benchmarks.scale_table import missed
from tests.benchmarks.scale_table import table as scale_table
from tests.benchmarks.workspace import Workspace

_WIDTH = max(map(len, BENCHES))


def main(argv: Sequence[str] | None = None) -> int:
    """0 when every budget is met, else 1."""
    options = _options(argv)
    logging.disable(logging.CRITICAL)
    if options.scale:
        return _scale(options.db)
    began, before = time.monotonic(), calibration()
    rows: list[Row] = []
    names = [name for name in BENCHES if not options.only or name in options.only]
    with Workspace(scale=options.share) as workspace:
        for number, name in enumerate(names):
            took = f"{time.monotonic() - began:.0f} s"
            sys.stderr.write(f"{number + 1} of {len(names)} {name}: {BENCHES[name].about} ({took} so far)\n")
            for row in BENCHES[name].rows(workspace):
                workspace.say(f"{row.what}: {row.value:,.0f} {row.unit}")
                rows.append(row)
    after = calibration()
    if options.json:
        found = [{**asdict(row), "met": row.met} for row in rows]
        sys.stdout.write(
            json.dumps({"calibration_ms": [before, after], "load": _load(), "share": options.share, "rows": found})
            + "\n"
        )
    else:
        sys.stdout.write(
            f"{table(rows)}\n\ncalibration loop: {before:.0f} ms before, {after:.0f} ms after; "
            "µs are of CPU, per item, on the client's side\n"
            f"load average {_load()} on {os.cpu_count()} CPUs at the end: above them, the machine was shared\n"
        )
    over = [row.what for row in rows if not row.met]
    sys.stderr.write(f"{len(over)} over: {'; '.join(over)}\n" if over else "every budget is met\n")
    return 1 if over else 0


def _scale(database: str) -> int:
    from tests.benchmarks import scale  # noqa: PLC0415 - it is asked for seldom

    before = calibration()
    with Workspace() as workspace:
        found = scale.measure(workspace, database)
    sys.stdout.write(
        f"{database}, RabbitMQ; CPU of one engine, the budget in brackets\n\n{scale_table(found)}\n\n"
        f"calibration loop: {before:.0f} ms before, {calibration():.0f} ms after; load average {_load()} on "
        f"{os.cpu_count()} CPUs at the end\n"
    )
    wrong = missed(found)
    sys.stderr.write(f"{len(wrong)} over: {'; '.join(wrong)}\n" if wrong else "every budget is met\n")
    return 1 if wrong else 0


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    benches = "\n".join(f"  {name:<{_WIDTH}}  {bench.about}" for name, bench in BENCHES.items())
    parser = argparse.ArgumentParser(
        prog="tools/bench",
        description="CPU per item of each stage beside the bare library in the same run, with the budgets to hold "
        "to. A calibration loop runs before and after: this kind of machine changes its speed by 1.9 from minute "
        "to minute, so a figure is compared with its neighbour, not with yesterday's. The bare library of one "
        "event per request is the least of an honest server: falcon, JSON, one INSERT into the same table, by "
        "the same driver and pool, committed; for uWSGI in a worker of its own. It checks, authenticates, decides "
        "and logs nothing.",
        epilog=f"benches:\n{benches}\n\nexamples:\n  tools/bench\n  tools/bench --only api,reports --json\n"
        "  tools/bench --share 0.05     a quick look, rougher\n"
        "  tools/bench --scale          10 to 10,000 hosts, some ten minutes\n\n"
        "The exit code is 0 when every budget is met, else 1.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", type=_names, default=(), metavar="NAME[,NAME]", help="these benches; all by default"
    )
    parser.add_argument("--share", type=_share, default=1.0, metavar="X", help="so much of the work (default 1)")
    parser.add_argument(
        "--scale", action="store_true", help="instead: what 10, 1,000 and 10,000 hosts with ten volumes each cost"
    )
    parser.add_argument(
        "--db", choices=("PostgreSQL", "MariaDB"), default="PostgreSQL", help="of --scale (default: PostgreSQL)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    return parser.parse_args(argv)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := sorted(set(names) - set(BENCHES)):
        raise argparse.ArgumentTypeError(f"no bench named {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    return names


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0, at most 1")
    return share


if __name__ == "__main__":
    raise SystemExit(main())
