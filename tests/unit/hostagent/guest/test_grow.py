# SPDX-License-Identifier: Apache-2.0
"""A file system is grown where it can follow, and left untouched where it cannot."""

from dataclasses import replace
from itertools import count

import pytest

from bridge.core.extend import ExtendKey
from bridge.core.file_systems import FileSystemSeen, FsState
from bridge.core.reasons import Reason
from hostagent.guest.grow import VolumeGrowth
from tests.lab.played_guest import MIB, SERVER, VOLUME, PlayedGuest, calls_of


def grown(guest: PlayedGuest) -> FileSystemSeen:
    ticks = count()
    growth = VolumeGrowth(
        calls=calls_of(guest), key=ExtendKey(SERVER, VOLUME), volume_ids={VOLUME}, capacity=guest.disk * MIB,
        command_limit=300, clock=lambda: float(next(ticks)),
    )  # fmt: skip
    return growth.run()


LAYOUTS = {
    "gpt_ext4": (PlayedGuest(), ["growpart", "resize2fs"]),
    "mbr_ext4": (PlayedGuest(label="dos"), ["growpart", "resize2fs"]),
    "gpt_xfs": (PlayedGuest(kind="xfs"), ["growpart", "xfs_growfs"]),
    "disk_btrfs": (PlayedGuest(kind="btrfs", partition=None, covered=512), ["btrfs"]),
    "lvm_on_disk": (
        PlayedGuest(partition=None, logical=508, covered=508),
        ["pvresize", "lvextend", "resize2fs"],
    ),
    "lvm_on_partition": (
        PlayedGuest(logical=507, covered=507, kind="xfs"),
        ["growpart", "pvresize", "lvextend", "xfs_growfs"],
    ),
}


def a_copy(guest: PlayedGuest) -> PlayedGuest:
    return replace(guest, ran=[], touched=[], _ended={})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_partition_layers_and_file_system_follow_in_this_order_and_a_second_run_changes_nothing(
    layout: str,
) -> None:
    guest, commands = a_copy(LAYOUTS[layout][0]), LAYOUTS[layout][1]
    seen = grown(guest)
    assert (seen.state, seen.reason) == (FsState.GROWN, "fs_grown"), seen.steps
    assert guest.touched == commands
    assert seen.size is not None
    assert seen.size > 650 * MIB
    again = grown(guest)
    assert again.state is FsState.FITS
    assert guest.touched == commands


CUTS = [
    (layout, command)
    for layout, (_, commands) in LAYOUTS.items()
    for command in commands
    if command != "btrfs"  # the look uses the same tool
]


@pytest.mark.parametrize(("layout", "command"), CUTS)
def test_a_growth_cut_off_before_any_command_is_completed_by_the_next(layout: str, command: str) -> None:
    guest = a_copy(LAYOUTS[layout][0])
    guest.dies_at = command
    first = grown(guest)
    assert (first.state, first.reason) == (FsState.FAILED, Reason.FS_AGENT_SILENT.value)
    guest.dies_at = ""
    assert grown(guest).state is FsState.GROWN
    assert guest.touched == LAYOUTS[layout][1]


REFUSED = {
    "read_only": (PlayedGuest(writable=False), Reason.FS_READ_ONLY),
    "not_mounted": (PlayedGuest(mounted=False), Reason.FS_NOT_MOUNTED),
    "swap_last": (PlayedGuest(mounted=False, swap=True), Reason.FS_NOT_LAST),
    "unknown_type": (PlayedGuest(kind="vfat"), Reason.FS_TYPE),
    "luks": (PlayedGuest(logical=500, uuid="CRYPT-LUKS2-abc"), Reason.FS_LUKS),
    "raid": (PlayedGuest(logical=500, uuid="something"), Reason.FS_LAYOUT),
    "two_logical_volumes": (PlayedGuest(logical=500, volumes=2), Reason.FS_SEVERAL_VOLUMES),
    "logical_partition": (PlayedGuest(label="dos", number=5), Reason.FS_LOGICAL_PARTITION),
    "beyond_the_mbr": (PlayedGuest(label="dos", disk=3 << 20), Reason.FS_MBR_LIMIT),
    "marked_as_faulty": (PlayedGuest(state="clean with errors"), Reason.FS_ERRORS),
    "beyond_32_bits": (
        PlayedGuest(disk=17 << 20, partition=15 << 20, covered=15 << 20, features="has_journal extent"),
        Reason.FS_SIZE_LIMIT,
    ),
    "unknown_table": (PlayedGuest(label="sun"), Reason.FS_TABLE),
    "no_free_extents": (
        PlayedGuest(partition=None, logical=700, covered=700, extent=128),
        Reason.FS_NO_FREE_EXTENTS,
    ),
    "no_growpart": (PlayedGuest(missing=frozenset({"growpart"})), Reason.FS_TOOL_MISSING),
    "exec_forbidden": (PlayedGuest(forbids_exec=True), Reason.FS_AGENT_FORBIDS),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_follow_is_refused_before_anything_is_touched(case: str) -> None:
    guest, reason = a_copy(REFUSED[case][0]), REFUSED[case][1]
    seen = grown(guest)
    assert (seen.state, seen.reason) == (FsState.REFUSED, reason.value), seen.steps
    assert guest.touched == []


def test_a_guest_whose_disk_has_no_such_serial_is_tried_again() -> None:
    seen = grown(PlayedGuest(serial="another"))
    assert (seen.state, seen.reason) == (FsState.FAILED, "fs_disk_not_found")


def test_a_kernel_that_does_not_show_the_size_yet_is_tried_again_and_nothing_is_touched() -> None:
    guest = PlayedGuest(disk=512)
    ticks = count()
    growth = VolumeGrowth(
        calls=calls_of(guest), key=ExtendKey(SERVER, VOLUME), volume_ids={VOLUME}, capacity=768 * MIB,
        command_limit=300, clock=lambda: float(next(ticks)),
    )  # fmt: skip
    assert growth.run().reason == "fs_disk_still_small"
    assert guest.touched == []


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tools_that_say_success_and_change_nothing_are_not_believed(layout: str) -> None:
    guest = a_copy(LAYOUTS[layout][0])
    guest.lies = True
    seen = grown(guest)
    assert seen.state is FsState.FAILED
    assert seen.reason in {"fs_step_failed", "fs_not_verified"}


def test_each_command_and_its_answer_stands_in_the_steps() -> None:
    seen = grown(PlayedGuest())
    words = [step.detail for step in seen.steps]
    assert any(detail.startswith("growpart /dev/vdb 1 -> 0") for detail in words)
    assert [step.name for step in seen.steps if step.name != "look"] == ["partition", "file_system"]
    assert all(len(detail) <= 500 for detail in words)
