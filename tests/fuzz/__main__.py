# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.fuzz --count N`: N mutated messages, on all cores; says every message that is read wrongly."""

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

from tests.fuzz.work import portion

_PORTION: Final = 2500
_GROWTH: Final = 128.0  # MiB a worker may grow by: a few copies of messages of up to 4 MiB, nothing of those before
_SHOWN: Final = 5


def main(argv: Sequence[str] | None = None) -> int:
    """0 when every message was read as it has to be, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=20_000, metavar="N", help="messages (default 20000)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of the mutations (default 1)")
    options = parser.parse_args(argv)
    began, done = time.monotonic(), 0
    kinds: Counter[str] = Counter()
    faults: list[str] = []
    growth = 0.0
    portions = [(options.seed, n, min(_PORTION, options.count - n)) for n in range(0, options.count, _PORTION)]
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        for found, seen, grown in pool.imap_unordered(portion, portions):
            faults += found
            kinds += seen
            growth = max(growth, grown)
            done += seen.total()
            _say(done, options.count, len(faults), began)
    rate = done / (time.monotonic() - began)
    sys.stderr.write("\n")
    for text in faults[:_SHOWN]:
        sys.stdout.write(f"{text}\n")
    read_as = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    sys.stdout.write(f"{done} mutated messages, {len(faults)} read wrongly; {read_as}; ")
    sys.stdout.write(f"{rate:.0f} a second, memory grew by {growth:.0f} MiB\n")
    return 1 if faults or growth > _GROWTH or done != options.count else 0


def _say(done: int, count: int, faults: int, began: float) -> None:
    left = (time.monotonic() - began) / done * (count - done)
    sys.stderr.write(f"\rfuzz: {done:,} of {count:,}, {faults} read wrongly, {left:.0f} s to go ")
    sys.stderr.flush()


if __name__ == "__main__":
    raise SystemExit(main())
