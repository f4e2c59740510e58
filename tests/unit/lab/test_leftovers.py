# SPDX-License-Identifier: Apache-2.0
"""A run that is killed leaves neither a process nor a file; a run that ends and leaves a process fails."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.lab.leftovers import RUN, TIMES
from tests.lab.paths import ROOT
from tests.lab.waiting import until

STARTS_A_DAEMON = """
import os, subprocess, sys, tempfile, time
from pathlib import Path

def test_it():
    here = Path(tempfile.mkdtemp())
    daemon = "import os, time; os.fork() and os._exit(0); os.setsid(); print(os.getpid(), flush=True)"
    command = [sys.executable, "-c", f"{{daemon}}; time.sleep(600)", f"{{here}}/daemon"]
    made = subprocess.Popen(command, stdout=subprocess.PIPE, text=True{more})
    pid = made.stdout.readline().strip()
    Path(os.environ["NAMED"]).write_text(f"{{pid}} {{here}}")
    time.sleep({seconds})
"""


def start(tmp_path: Path, *, more: str = "", seconds: int) -> tuple[subprocess.Popen[str], Path]:
    """Start a pytest whose test starts a daemon; the process, and the file that names what the test has made."""
    (tmp_path / "test_one.py").write_text(STARTS_A_DAEMON.format(more=more, seconds=seconds))
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    named = tmp_path / "named"
    environment = {name: value for name, value in os.environ.items() if name not in {RUN, TIMES, "TMPDIR"}}
    environment |= {"NAMED": str(named), "PYTHONPATH": str(ROOT), "EXTEND_BRIDGE_LONGEST": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "-p", "xdist", str(tmp_path)]
    return (
        subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True),
        named,
    )


def lives(pid: int) -> bool:
    """Return whether a process lives."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    return False


@pytest.mark.parametrize("more", ["", ", env={}"], ids=["by its environment", "by its command line"])
def test_a_run_that_is_killed_leaves_no_process_and_no_file(tmp_path: Path, more: str) -> None:
    process, named = start(tmp_path, more=more, seconds=600)
    until(lambda: named.exists() and named.read_text(), "the test runs")
    pid, directory = named.read_text().split()
    assert lives(int(pid))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    until(lambda: not lives(int(pid)), "the daemon is ended")
    until(lambda: not Path(directory).parent.exists(), "the temporary files are removed")


def test_a_run_that_leaves_a_process_fails_and_names_it(tmp_path: Path) -> None:
    process, named = start(tmp_path, seconds=0)
    said, _ = process.communicate()
    pid, directory = named.read_text().split()
    assert process.returncode == pytest.ExitCode.TESTS_FAILED
    assert f"left running: {pid}" in said
    until(lambda: not lives(int(pid)) and not Path(directory).parent.exists(), "the guard cleans up")


def test_a_stage_ends_with_tools_test(tmp_path: Path) -> None:
    runner = (
        "import os, sys; from tests.lab.stage_run import Stage, StageRun; "
        "StageRun(Stage('real', '', ()), dict(os.environ)).run("
        "[sys.executable, '-c', 'import os, time; print(os.getpid(), flush=True); time.sleep(600)'])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", runner], cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ}
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
    until(lambda: not lives(pid), "the stage is ended")
