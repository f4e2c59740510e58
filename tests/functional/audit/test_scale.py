# SPDX-License-Identifier: Apache-2.0
"""A long audit log: the report takes little memory. A million lines with --long, a quarter of them without."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.trail import many

pytestmark = pytest.mark.functional
LONG = os.environ.get("EXTEND_BRIDGE_LONG") == "1"
EXTENDS, MIB = (166_667, 300) if LONG else (41_667, 150)  # six lines each


def test_the_report_of_a_long_log_takes_little_memory(tmp_path: Path) -> None:
    """Run in a process of its own, whose memory is measured."""
    log = tmp_path / "audit.log"
    with log.open("w") as file:
        file.writelines(f"{line}\n" for line in many(EXTENDS))
    code = (  # ru_maxrss would be this test process's own, where that is larger: exec does not reset it
        "import sys; from bridge.cli.app import main; main(sys.argv[1:]); "
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    argv = ["audit", "report", "--log", str(log), "-f", "csv", "--html", str(tmp_path / "page.html")]
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], capture_output=True, text=True, check=True, timeout=600
    )
    kib = float(done.stdout.splitlines()[-1])
    assert f'"total","extends",{EXTENDS},' in done.stdout
    assert kib < MIB * 1024
