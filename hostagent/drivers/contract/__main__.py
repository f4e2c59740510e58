# SPDX-License-Identifier: Apache-2.0
"""`python -m hostagent.drivers.contract --driver NAME`: run all promises against one driver."""

import sys
from collections.abc import Sequence
from pathlib import Path

USAGE = """\
usage: python -m hostagent.drivers.contract --driver NAME [--factory MODULE:NAME] [pytest options]

Runs every promise of the seam between the host agent and a hypervisor against the guests of a driver.
Needs extend-bridge[contract]. Ends with 0 when all promises hold, with 1 when one is broken.

Example: python -m hostagent.drivers.contract --driver mine --factory mine.guests:Factory -k shrink
"""


def main(argv: Sequence[str]) -> int:
    """Run pytest on the promises; return its exit code."""
    if not argv or {"-h", "--help"} & set(argv):
        sys.stdout.write(USAGE)
        return 0 if argv else 2
    try:
        import pytest  # noqa: PLC0415 - an agent is installed without it
    except ImportError:
        sys.stderr.write("pytest is not installed; install extend-bridge[contract]\n")
        return 2
    promises = Path(__file__).with_name("promises.py")
    plain = ["-p", "no:cacheprovider", "-p", "hostagent.drivers.contract.plugin", "-o", "addopts=", "-ra"]
    return int(pytest.main([*plain, "--rootdir", str(promises.parent), str(promises), *argv]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
