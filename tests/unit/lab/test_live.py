# SPDX-License-Identifier: Apache-2.0
"""The pure parts of tools/live --nova."""

import os
from pathlib import Path

import pytest

from tests.live.latency import group_cpu
from tests.live.nova_walk import SUCCESS, told_once
from tests.live.servers import InstanceAction
from tests.live.tempest_run import result_of


def test_a_run_of_tempest_passes_by_its_own_words() -> None:
    result_of("Tests running...\n\nRan 2 tests in 31.5s\nOK (skipped=1)\n", 0).expect_passed(1)


@pytest.mark.parametrize(
    ("output", "code"),
    [
        ("Ran 1 test in 45.1s\nFAILED (failures=1)\n", 1),
        ("Ran 0 tests in 0.0s\nOK (skipped=1)\n", 0),
        ("Ran 1 test in 0.0s\nOK (skipped=1)\n", 0),
        ("ModuleNotFoundError: no tempest\n", 1),
        ("", 0),
    ],
)
def test_a_run_that_failed_skipped_or_found_nothing_has_not_passed(output: str, code: int) -> None:
    with pytest.raises(AssertionError):
        result_of(output, code).expect_passed(1)


def test_nova_was_told_once_for_each_extend() -> None:
    done = InstanceAction(request_id="req-1", result=SUCCESS)
    told_once([done], 1)
    with pytest.raises(AssertionError, match="told 2 times"):
        told_once([done, done], 1)
    with pytest.raises(AssertionError):
        told_once([InstanceAction(request_id="req-1", result="Error")], 1)


def test_the_cpu_of_a_process_group_has_that_of_its_ended_children(tmp_path: Path) -> None:
    def process(pid: int, group: int, *ticks: int) -> None:
        before = "0 " * 8  # session .. majflt, cmajflt
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(
            f"{pid} (a (b) c) S 1 {group} {before}{' '.join(map(str, ticks))} 20 0\n"
        )

    process(10, 10, 100, 50, 25, 25)
    process(11, 10, 200, 0, 0, 0)
    process(12, 12, 900, 0, 0, 0)
    assert group_cpu(10, tmp_path) == 400 / os.sysconf("SC_CLK_TCK")
