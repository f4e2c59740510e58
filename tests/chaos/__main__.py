# SPDX-License-Identifier: Apache-2.0
"""tools/chaos."""

import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.chaos.options import TOOL, Options, options
from tests.chaos.plan import plan, show
from tests.lab.leftovers import OUTSIDE

_SHOWN: Final = 10


def main(argv: Sequence[str] | None = None) -> int:
    """0 when nothing was lost, shrunk or stuck, else 1."""
    chosen = options(argv)
    if chosen.dry_run:
        show(chosen)
        return 0
    directory = chosen.keep or Path(tempfile.mkdtemp(prefix="eb-chaos-", dir=os.environ.get(OUTSIDE)))
    directory.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        filename=directory / "chaos.log", level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    try:
        clean = _run(chosen, directory)
    except BaseException:
        sys.stderr.write(f"{TOOL}: the run did not come to its end; its logs are in {directory}\n")
        raise
    if chosen.keep is None and clean:
        shutil.rmtree(directory, ignore_errors=True)
    return 0 if clean else 1


def _run(chosen: Options, directory: Path) -> bool:
    import bridge.runtime.threads  # noqa: F401, PLC0415 - first of all, once the options are known to be good
    from tests.chaos.gray import GrayRun  # noqa: PLC0415
    from tests.chaos.load import load  # noqa: PLC0415
    from tests.chaos.progress import Bar  # noqa: PLC0415
    from tests.chaos.run import Run  # noqa: PLC0415

    if chosen.fault is not None:
        return _heal(chosen, directory)
    began = time.monotonic()
    planted = f", planted {chosen.planted.value}" if chosen.planted else ""
    say = sys.stderr.write
    say(f"{TOOL}: seed {chosen.seed}, {chosen.db}, {chosen.cluster} broker node(s){planted}; starting\n")
    with ExitStack() as stack:
        run = (GrayRun if chosen.gray else Run)(chosen, directory, stack)
        started = time.monotonic()
        say(f"{TOOL}: everything runs after {started - began:.0f} s; {chosen.spread:.0f} s of load and faults\n")
        bar = Bar(sum(len(growth.told_at) for growth in load(chosen).growths), len(plan(chosen)))
        verdict, summary, seen = run.go(bar)
        clean = verdict.clean and run.clean
        bar.end()
        for line in run.about():
            sys.stdout.write(f"{line}\n")
        if not clean:
            histories = run.histories(verdict, seen)
            (directory / "verdict.txt").write_text("\n".join(histories) + "\n")
            for line in [line for line in histories if not line.startswith(" ")][:_SHOWN]:
                sys.stdout.write(f"{line}\n")
            if verdict.vanished:
                sys.stdout.write(f"lost: {verdict.vanished} bad messages are in no lane\n")
            sys.stdout.write(f"logs, audit logs and configuration: {directory}\n")
        sys.stdout.flush()
    if chosen.json:
        sys.stdout.write(json.dumps(summary.to_json()) + "\n")
    sys.stdout.write(f"{summary}\n")
    sys.stdout.flush()
    return clean


def _heal(chosen: Options, directory: Path) -> bool:
    from tests.chaos.heal import Healing  # noqa: PLC0415 - as above
    from tests.chaos.progress import Bar  # noqa: PLC0415

    sys.stderr.write(f"{TOOL}: seed {chosen.seed}, {chosen.db}, {chosen.fault}; starting\n")
    with ExitStack() as stack:
        run = Healing(chosen, directory, stack)
        healed = run.heal(Bar(chosen.events, 0))
        for line in [*run.about(), *healed.lines()[:_SHOWN]]:
            sys.stdout.write(f"{line}\n")
        if not healed.clean:
            sys.stdout.write(f"logs, audit logs and configuration: {directory}\n")
    if chosen.json:
        sys.stdout.write(json.dumps(healed.to_json()) + "\n")
    sys.stdout.write(f"{healed}\n")
    return healed.clean


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
