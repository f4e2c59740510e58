# SPDX-License-Identifier: Apache-2.0
"""Entry point of tools/attack: run the attacks and print the table."""

import bridge.runtime.threads  # noqa: F401 - first, before anything that may choose another backend

# isort: split
import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.attack.catalogue import attacks, grounds
from tests.attack.frame import Verdict, fight, percentile

TOOL: Final = "tools/attack"
_SHORT_SECONDS: Final = 4.0
_SECONDS: Final = 20.0


def options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog=TOOL,
        description="Strangers, slow readers, guessers and liars against running daemons, each beside a good "
        "caller and good hosts. Ends with 0 when all of it held.",
        epilog=f"Example: {TOOL} --short slow-readers hung-keystone",
    )
    parser.add_argument("attack", nargs="*", help="attacks to run; all by default")
    parser.add_argument("--list", action="store_true", help="show each attack and end")
    parser.add_argument("--short", action="store_true", help="the form for CI: less of each, and not all of them")
    parser.add_argument("--seconds", type=float, help="seconds of each attack that has no end of its own")
    parser.add_argument(
        "--p99",
        type=float,
        default=1.0,
        metavar="S",
        help="seconds that the good caller may wait at the 99th percentile; 0: not judged (default: %(default)s)",
    )
    parser.add_argument("--keep", type=Path, help="keep logs and configuration in this directory")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the attacks; 0 when all held and the good caller was served in time."""
    chosen = options(argv)
    known = attacks()
    if chosen.list:
        for attack in known:
            print(f"{attack.name:24} {attack.ground:9} {attack.about}")
        return 0
    unknown = sorted(set(chosen.attack) - {attack.name for attack in known})
    if unknown:
        sys.stderr.write(f"{TOOL}: no attack named {', '.join(unknown)}; see {TOOL} --list\n")
        return 2
    wanted = [
        attack
        for attack in known
        if (attack.name in chosen.attack if chosen.attack else attack.short or not chosen.short)
    ]
    seconds = chosen.seconds or (_SHORT_SECONDS if chosen.short else _SECONDS)
    directory = chosen.keep or Path(tempfile.mkdtemp(prefix="eb-attack-"))
    verdicts = []
    for verdict in fight(wanted, grounds(), directory, seconds=seconds):
        verdicts.append(verdict)
        _show(verdict)
    held = sum(verdict.held for verdict in verdicts)
    p99 = percentile([wait for verdict in verdicts for wait in verdict.waits], 0.99)
    clean = held == len(verdicts) and (chosen.p99 == 0 or p99 <= chosen.p99)
    if chosen.keep is None and clean:
        shutil.rmtree(directory, ignore_errors=True)
    elif not clean:
        print(f"logs and configuration are in {directory}")
    print(f"held {held} of {len(verdicts)}, good caller p99 {p99:.2f} s")
    return 0 if clean else 1


def _show(verdict: Verdict) -> None:
    waits = verdict.waits
    print(
        f"{'held' if verdict.held else 'BROKE':6} {verdict.attack.name:24} good caller: {len(waits)} calls, "
        f"p50 {percentile(waits, 0.5):.2f} p99 {percentile(waits, 0.99):.2f} max {max(waits, default=0):.2f} s",
        flush=True,
    )
    for complaint in verdict.complaints:
        print(f"       {complaint}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
