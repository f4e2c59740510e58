# SPDX-License-Identifier: Apache-2.0
"""Commands in a chroot: their environment, and their end with the process that started them."""

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.chroot import command_inside, environment_inside
from tests.lab.waiting import LONGEST


def test_settings_of_the_lab_go_along_and_paths_of_this_machine_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RUN", "OUTSIDE", "TIMES", "LAB", "PORTS", "LONGEST"):
        monkeypatch.setenv(f"EXTEND_BRIDGE_{name}", os.devnull)
    monkeypatch.setenv("TMPDIR", "/elsewhere")
    inside = environment_inside(tmp_path)
    assert sorted(name for name in inside if name.startswith("EXTEND_BRIDGE_")) == [
        "EXTEND_BRIDGE_LONGEST",
        "EXTEND_BRIDGE_PORTS",
    ]
    assert "TMPDIR" not in inside


def test_a_command_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """A tool that is killed leaves no QEMU behind in the chroot."""
    read, write = os.pipe()
    tied = command_inside(tmp_path, "")[:3]
    command = [*tied, sys.executable, "-c", "print('up', flush=True); import time; time.sleep(3600)"]
    caller = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess; subprocess.run({command!r})"], stdout=write
    )
    os.close(write)
    with os.fdopen(read) as said:
        assert said.readline() == "up\n"
        caller.kill()
        caller.wait(LONGEST)
        assert select.select([said], [], [], LONGEST)[0]
        assert said.read() == ""
