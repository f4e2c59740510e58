# SPDX-License-Identifier: Apache-2.0
"""The seconds that tools/guests judges: without the hypervisor's own resize, and with all else."""

from typing import Any

import pytest

from tests.guests.verdict import Verdict, overlap, resizes, slowest_lines


def verdict(seconds: float | None, held: float = 0.0) -> Verdict:
    return Verdict(way="saved", volume="virtio/rbd", told=True, seconds=seconds, words="sees it", held=held)


def test_a_disk_that_waited_for_the_hypervisors_own_call_is_not_late() -> None:
    assert slowest_lines([verdict(9.2, held=8.9), verdict(0.5), verdict(None)], 2) == (
        [
            "the hypervisor's own resize: up to 8.90 s (saved, virtio/rbd)",
            "slowest 0.50 s (saved, virtio/rbd)",
        ],
        False,
    )


def test_a_disk_that_waited_for_anything_else_is_late() -> None:
    lines, slow = slowest_lines([verdict(9.2, held=0.2), verdict(0.5)], 2)
    assert slow
    assert lines[-1] == "slowest 9.00 s (saved, virtio/rbd), 1 later than 2 s"


def test_disks_whose_guests_look_at_boot_alone_have_no_seconds() -> None:
    assert slowest_lines([verdict(None)], 2) == ([], False)


def step(name: str, seconds: float, attempt: str = "a") -> dict[str, Any]:
    line = {"event": "step", "time": "1970-01-01T00:01:40.000000Z", "attempt_id": attempt, "seconds": seconds}
    return {**line, "data": {"step": name}}


def test_a_resize_ended_where_the_steps_after_it_began() -> None:
    steps = [step("find", 1), step("resize", 5), step("verify", 2), step("find", 3, "b"), step("tell", 4, "b")]
    assert resizes(steps) == [(93, 98), (96, 100)]


def test_time_in_two_resizes_counts_once_and_only_while_the_disk_was_waited_for() -> None:
    assert overlap([(96, 100), (93, 98), (120, 130)], 94, 125) == pytest.approx(6 + 5)
    assert overlap([(93, 98)], 98, 125) == 0
    assert overlap([], 0, 1) == 0
