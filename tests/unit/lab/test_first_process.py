# SPDX-License-Identifier: Apache-2.0
"""A tool that is the first process of a container, here of a namespace of process ids."""

import os
import shutil
import subprocess
import sys
from textwrap import dedent

import pytest

from tests.conftest import missing
from tests.lab.first_process import stay_first
from tests.lab.paths import ROOT
from tests.lab.waiting import LONGEST

_ORPHAN = """
import os, subprocess, sys, time
from pathlib import Path
from tests.lab.first_process import stay_first
stay_first()
orphan = subprocess.run(["sh", "-c", "sleep 0 & echo $!"], stdout=subprocess.PIPE, text=True).stdout.strip()
ends = time.monotonic() + float(sys.argv[1])
while Path(f"/proc/{orphan}").exists():
    if time.monotonic() > ends:
        sys.exit(f"the orphan {orphan} is still there")
    time.sleep(0.01)
sys.exit(7)
"""
_KILLED = """
import os, signal
from tests.lab.first_process import stay_first
stay_first()
os.kill(os.getpid(), signal.SIGKILL)
"""


def _first(program: str) -> "subprocess.CompletedProcess[str]":
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        missing("root or unshare")
    alone = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return subprocess.run(
        [*alone, sys.executable, "-c", dedent(program), str(LONGEST)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_first_process_collects_orphans_and_ends_with_the_code_of_its_child() -> None:
    """Without that an orphan that has ended stays in the list of processes."""
    done = _first(_ORPHAN)
    assert (done.returncode, done.stderr) == (7, "")


def test_the_first_process_ends_as_its_child_was_ended() -> None:
    """A signal is 128 and its number, as a shell says it."""
    assert _first(_KILLED).returncode == 128 + 9


@pytest.mark.parametrize("pid", [2, 4711])
def test_no_other_process_forks(pid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with an init the tool goes on in its own process."""
    monkeypatch.setattr(os, "getpid", lambda: pid)
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("forked"))
    stay_first()
