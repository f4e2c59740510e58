# SPDX-License-Identifier: Apache-2.0
"""What tools/demo can be told. Standard library only: read before anything is installed."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass

_DESCRIPTION = """\
Watch a real guest's disk grow because a Cinder notification went by.

A guest boots under QEMU (no KVM needed) with a 1 GiB volume. Cinder (a stand-in, with a message recorded from a
real Cinder 29) grows the volume to 2 GiB and says so on the bus. The bridge does the rest; the guest prints what it
sees. Installs what it needs on first use (apt as root, PyPI) and leaves nothing running and nothing behind."""


@dataclass(frozen=True)
class Options:
    """`broker`: none means everything in one process. `disk`: what is under the guest's vda."""

    broker: str
    disk: str
    driver: str = "libvirt"


def parse(argv: Sequence[str] | None) -> Options:
    """Read the command line; ends the process with status 2 for what nobody can use."""
    root = os.geteuid() == 0
    parser = argparse.ArgumentParser(
        prog="tools/demo",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Example: tools/demo --broker rabbitmq --disk qcow2",
    )
    parser.add_argument(
        "--broker",
        choices=("none", "rabbitmq"),
        default="none",
        help="none: all in one process, the bus in its memory (default); rabbitmq: a private RabbitMQ node, with "
        "listener, API, engine and host agent as four processes",
    )
    parser.add_argument(
        "--disk",
        choices=("loop", "raw", "qcow2"),
        default="loop" if root else "raw",
        help="loop: a block device, which os-brick refreshes (needs root, and is root's default); raw, qcow2: a "
        "file, which QEMU grows",
    )
    parser.add_argument(
        "--driver",
        choices=("libvirt", "qmp"),
        default="libvirt",
        help="libvirt: a guest of libvirt (default); qmp: a plain QEMU, asked by its QMP socket",
    )
    options = parser.parse_args(argv)
    if options.disk == "loop" and not root:
        parser.error("--disk loop makes a loop device, which only root may; use --disk raw or qcow2")
    return Options(broker=options.broker, disk=options.disk, driver=options.driver)
