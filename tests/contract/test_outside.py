# SPDX-License-Identifier: Apache-2.0
"""A driver of another package: made here, installed beside, found by its entry point, and proved by one command.

Its hypervisor lives in memory, so each broken promise is cheap to show: the suite fails, and says which.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.paths import ROOT

PACKAGE = ROOT / "tests" / "contract" / "outside"
ENTRY_POINTS = """\
[extend_bridge.drivers]
memory = memory_driver.driver:DRIVER

[extend_bridge.contract]
memory = memory_driver.guests:Factory
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the package and what an installer writes beside it."""
    directory = tmp_path_factory.mktemp("site")
    package = directory / "memory_driver"
    package.mkdir()
    for source in PACKAGE.glob("*.py"):
        (package / source.name).write_text(source.read_text())
    info = directory / "memory_driver-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: memory-driver\nVersion: 1\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    return directory


def suite(installed: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command where the package is installed."""
    environment = {**os.environ, "PYTHONPATH": f"{installed}:{ROOT}"}
    return subprocess.run(
        [sys.executable, *command], cwd=installed, capture_output=True, text=True, check=False, timeout=900,
        env=environment,
    )  # fmt: skip


def test_a_driver_from_outside_the_tree_is_found_and_keeps_every_promise(installed: Path) -> None:
    done = suite(installed, *COMMAND)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "failed" not in done.stdout


def test_without_a_driver_the_command_says_how_it_is_used() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hostagent.drivers.contract"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "--driver NAME" in done.stdout


def test_a_driver_that_is_not_installed_is_one_line_with_those_found(installed: Path) -> None:
    done = suite(installed, *COMMAND, "--driver", "hyperv", "-k", "entry_point")
    assert done.returncode == 1
    assert "no driver 'hyperv' is installed; found: libvirt, memory, qmp" in done.stdout


BROKEN = {
    "kib": "a_resize_is_in_bytes",
    "shrinks": "a_driver_that_says_it_never_shrinks_never_does",
    "old_size": "behind_the_guard_no_size_makes_a_disk_smaller",
    "silent_resize": "a_resize_tells_the_guest",
    "one_run": "a_run_has_one_name_and_the_next_run_another",
    "raises": "a_guest_of_another_host_is_not_here",
    "ghost": "a_guest_that_runs_is_listed_and_one_that_ended_is_not",
    "upper_case": "a_guest_that_runs_is_listed_and_one_that_ended_is_not",
    "deaf": "guests_that_come_and_go_are_events",
    "no_reset": "a_reset_says_that_the_guest_starts_again",
    "no_removal": "a_disk_that_leaves_is_an_event_by_its_alias",
    "hangs": "a_frozen_guest_costs_one_call_limit_and_no_other_guest",
    "swallows": "an_error_of_the_work_reaches_the_caller_and_the_session_goes_on",
    "writes": "an_agent_that_only_looks_cannot_resize",
    "all_disks": "a_resize_leaves_the_other_disks_alone",
    "one_name": "a_guest_is_shown_with_each_of_its_disks",
    "cannot": "its_capabilities_cover_the_disks_it_shows",
    "floods": "what_an_agent_answers_is_bounded_and_in_words",
}
"""Promises that the package breaks when told to, and the test that has to fail."""
COMMAND = ("-m", "hostagent.drivers.contract", "--driver", "memory", "-q", "--patience", "5")
EACH = """\
import contextlib, io, json, os, sys
from hostagent.drivers.contract.__main__ import main
for broken, promise in json.loads(sys.argv[1]).items():
    os.environ["MEMORY_DRIVER_BREAKS"] = broken
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = int(main(["--driver", "memory", "-q", "--patience", "2", "-k", promise]))
    print(json.dumps([broken, code, said.getvalue()]))
"""


def test_each_broken_promise_fails_its_test(installed: Path) -> None:
    done = suite(installed, "-c", EACH, json.dumps(BROKEN))
    assert done.returncode == 0, done.stderr[-3000:]
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [broken for broken, *_ in results] == list(BROKEN)
    unnoticed = [
        f"{broken}: {said[-1000:]}"
        for broken, code, said in results
        if code != 1 or f"promises.py::test_{BROKEN[broken]}" not in said
    ]
    assert unnoticed == []
