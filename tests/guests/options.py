# SPDX-License-Identifier: Apache-2.0
"""The command line of tools/guests. Standard library only, because it is read before anything is installed."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

TOOL: Final = "tools/guests"
_TOLD: Final = tuple((bus, backing) for bus in ("virtio", "scsi") for backing in ("loop", "raw", "qcow2", "rbd"))
KINDS: Final = (*_TOLD, ("sata", "loop"), ("sata", "qcow2"), ("usb", "loop"), ("usb", "raw"))
SHORT_KINDS: Final = (("virtio", "loop"), ("virtio", "qcow2"), ("scsi", "loop"), ("sata", "loop"))

_EPILOG: Final = """\
The guest runs Debian's kernel, whose drivers look at a disk's size at boot and when the device interrupts them.
Every way is played with every disk: Cinder extends each volume, and the guest's console says what its kernel sees.

A disk on SATA or USB is looked at only at boot. Until then it counts as told where its extend is closed with the
reason seen_at_restart.

The last three lines
  the hypervisor's own resize: up to H s (WAY, DISK)
  slowest S s (WAY, DISK)
  told N of N
S counts from the moment the guest is back, without the time in which QEMU stood in a resize of any disk, which the
audit log has. That takes milliseconds, except where a QEMU that had an RBD image open has died: Ceph waits five
seconds for its answer, whoever resizes the image. A way's own line has the time with all.

The exit code is 0 when every disk was told in every way, else 1; on a slow machine the guest's own part of S grows,
so only --within makes S count.

examples:
  tools/guests
  tools/guests --short
  tools/guests --within 2
  tools/guests --way saved --way migrated --keep /tmp/guests
"""


def options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog=TOOL,
        description="Shows that a stock kernel is told of its disks' sizes, in whatever way the guest comes back.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--short", action="store_true", help="a few ways and disks, without Ceph: what CI runs")
    parser.add_argument("--way", action="append", metavar="NAME", help="play this way only; may be repeated")
    parser.add_argument("--list", action="store_true", help="name the ways and end")
    parser.add_argument(
        "--limit", type=float, default=30.0, metavar="SECONDS", help="wait so long for each way; default 30"
    )
    parser.add_argument(
        "--within", type=float, metavar="SECONDS",
        help="fail where S is more than this; by default no time is too long",
    )  # fmt: skip
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="copy logs and the guest's console there")
    return parser.parse_args(argv)
