# SPDX-License-Identifier: Apache-2.0
"""The command line of tools/live. Standard library only, because it is read before anything is installed."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

TOOL: Final = "tools/live"
_EPILOG: Final = """\
Keystone and Cinder come from PyPI into virtualenvs in .lab, kept between runs. Cinder's own RBD driver works on a
Ceph in user space; the broker speaks TLS; tokens live for 60 s; the bridge is installed as the README says, with
the sample configuration and a broker user of each part. Nova is not there: the listener is the only way.

With --nova there is a whole Nova besides (API, conductor, scheduler, Placement and nova-compute, from PyPI), whose
own call from Cinder is cut off. The listener posts to it, and observe mode looks whether each guest has its size.

The last line
  live N of N

examples:
  tools/live
  tools/live --step engine-frozen --step broker-killed --keep /tmp/live
  tools/live --nova --step cast-lost
  tools/live --programs .venv/bin      # the bridge of a virtualenv, not installed anew
"""


def options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog=TOOL,
        description="Extends volumes of a real Cinder, and asks real guests for what they see.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--nova", action="store_true", help="play the walk beside a real nova-compute")
    parser.add_argument("--step", action="append", metavar="NAME", help="play this step only; may be repeated")
    parser.add_argument("--list", action="store_true", help="name the steps and end")
    parser.add_argument("--programs", type=Path, metavar="BIN", help="take the bridge's programs from there")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="copy the logs and configurations there")
    return parser.parse_args(argv)
