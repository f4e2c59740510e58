# SPDX-License-Identifier: Apache-2.0
"""The command line of tools/lastmile. Standard library only, because it is read before anything is installed."""

import argparse
from collections.abc import Sequence
from typing import Final

TOOL: Final = "tools/lastmile"

_EPILOG: Final = """\
A Debian guest with its stock kernel has a volume of each layout, on virtio-blk and virtio-scsi. Each tier:
  see      every volume grows on the host; the guest's agent says which file systems are behind
  grow     the agent's commands grow what can follow; the rest is refused before it is touched
  again    a second run changes nothing
  helper   every volume grows once more, and the helper in the guest does the work by itself
Without --short:
  helper2  the helper by hand, where the work is done already: it changes nothing
  A second run must leave partition tables, the metadata of LVM and LUKS, and disks that nobody writes, as they
  are, byte for byte.
  cut N    QEMU is killed before each command of the growth and after the last; the file systems are checked, and
           the growth is completed after the next boot.

The last line
  grown G refused R lied 0 touched 0
lied: said grown and was not. touched: a partition table changed and the file system did not grow.
The exit code is 0 when every layout ended as it must in every tier, else 1.

examples:
  tools/lastmile
  tools/lastmile --short
  tools/lastmile --layout luks --layout gpt_xfs
"""


def options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog=TOOL,
        description="Shows that file systems in a guest follow their volumes, or are left alone (root, apt).",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--short", action="store_true", help="a few layouts, and no power cuts: what CI runs")
    parser.add_argument("--layout", action="append", metavar="NAME", help="this layout only; may be repeated")
    parser.add_argument("--list", action="store_true", help="name the layouts and end")
    return parser.parse_args(argv)
