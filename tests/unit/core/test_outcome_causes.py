# SPDX-License-Identifier: Apache-2.0
"""Every outcome has a test in which a real cause brings it about: a real guest, broker, storage or process."""

import ast
from pathlib import Path
from typing import Final

import pytest

from bridge.core.outcome import Outcome

TESTS: Final = Path(__file__).resolve().parents[2]
HOST: Final = "functional/hostagent/test_extend.py"
WHOLE: Final = "functional/test_whole_path.py"

CAUSES: Final[dict[Outcome, tuple[str, str]]] = {
    Outcome.RESIZED: (HOST, "test_the_guest_sees_its_disk_grow"),
    Outcome.ALREADY: (HOST, "test_the_guest_sees_its_disk_grow"),
    Outcome.GUEST_OFF: (HOST, "test_a_guest_that_is_off_reads_the_devices_size_at_its_start"),
    Outcome.GUEST_SAVED: ("functional/qemu/test_guest_states.py", "test_a_saved_guest_of_a_grown_device"),
    Outcome.NOT_HERE: (HOST, "test_who_is_not_here_and_what_is_not_attached"),
    Outcome.NOT_ATTACHED: (HOST, "test_who_is_not_here_and_what_is_not_attached"),
    Outcome.NOT_YET: (
        "functional/hostagent/test_read_only.py",
        "test_it_reads_back_what_another_has_done_and_does_nothing_itself",
    ),
    Outcome.DEVICE_STALE: (HOST, "test_a_device_that_did_not_grow_is_stale_and_the_guest_is_left_alone"),
    Outcome.PATHS_DOWN: ("storage/test_multipath.py", "test_a_path_that_is_down_is_named_and_heals"),
    Outcome.BUSY: (HOST, "test_a_block_job_makes_it_busy_and_afterwards_it_works"),
    Outcome.BRICK_FAILED: (HOST, "test_an_os_brick_process_that_hangs_or_is_killed_costs_one_attempt"),
    Outcome.HYPERVISOR_FAILED: (HOST, "test_a_hung_qemu_holds_up_no_other_guest_and_is_not_asked_again"),
    Outcome.ERROR: ("functional/qemu/test_outcomes.py", "test_what_has_no_name_is_an_error_and_tried_again"),
    Outcome.UNSUPPORTED: (
        "functional/qemu/test_outcomes.py",
        "test_a_volume_type_that_nobody_extends_is_unsupported",
    ),
    Outcome.REFUSED: ("functional/qemu/test_rbd.py", "test_an_image_of_another_name_than_cinders_is_refused"),
    Outcome.VOLUME_GONE: (
        WHOLE,
        "test_a_volume_that_was_detached_or_deleted_meanwhile_closes_without_touching_the_guest",
    ),
    Outcome.DETACHED: (
        WHOLE,
        "test_a_volume_that_was_detached_or_deleted_meanwhile_closes_without_touching_the_guest",
    ),
}


def test_every_outcome_has_a_cause() -> None:
    """A new member of the closed set comes with its cause."""
    assert set(CAUSES) == set(Outcome)


@pytest.mark.parametrize("outcome", list(CAUSES))
def test_it_is_there_and_speaks_of_the_outcome(outcome: Outcome) -> None:
    """A test that was renamed, or asserts something else by now, is no proof."""
    file, name = CAUSES[outcome]
    source = (TESTS / file).read_text()
    [body] = [
        ast.get_source_segment(source, node) or ""
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and node.name == name
    ]
    assert f"Outcome.{outcome.name}" in body or f'"{outcome.value}"' in body
