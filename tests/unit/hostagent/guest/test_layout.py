# SPDX-License-Identifier: Apache-2.0
"""A volume is found by its serial, its layers are followed, and what is behind is told from what fits."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.extend import ExtendKey
from bridge.core.file_systems import Follow, FsLayout, FsState
from bridge.core.reasons import Reason
from hostagent.guest.answers import GuestDisk, GuestFileSystem
from hostagent.guest.errors import GuestLookError
from hostagent.guest.layout import find_disk, matches, tree_of
from hostagent.guest.see import GuestView, judge_volume, reference
from tests.lab.played_guest import MIB, SERVER, VOLUME

KEY = ExtendKey(SERVER, VOLUME)


def disk(serial: str | None = VOLUME[:20], device: str = "/dev/vdb") -> GuestDisk:
    return GuestDisk(device=device, partition=False, serial=serial)


def partition(number: int = 1) -> GuestDisk:
    return GuestDisk(device=f"/dev/vdb{number}", partition=True, beneath=("/dev/vdb",))


def mounted(
    device: str = "/dev/vdb1", total: int = 669, kind: str = "ext4", point: str = "/data"
) -> GuestFileSystem:
    return GuestFileSystem(device=device, mount_point=point, kind=kind, total=total * MIB, used=0)


@given(st.uuids())
def test_twenty_characters_of_the_id_are_enough_and_nineteen_are_not(volume: uuid.UUID) -> None:
    text = str(volume)
    assert matches(text, text)
    assert matches(text[:20].upper(), text)
    assert matches(f"0QEMU_QEMU_HARDDISK_{text[:20]}", text)
    assert not matches(text[:19], text)
    assert not matches(None, text)
    assert not matches("", text)


@given(st.text(max_size=40), st.uuids())
def test_no_other_text_names_a_volume(serial: str, volume: uuid.UUID) -> None:
    if matches(serial, str(volume)):
        assert str(volume)[:20] in serial.lower()


def test_a_serial_that_fits_two_volumes_or_two_disks_is_refused() -> None:
    twin = VOLUME[:24] + str(uuid.uuid4())[24:]
    with pytest.raises(GuestLookError) as two_volumes:
        find_disk([disk()], VOLUME, [VOLUME, twin])
    with pytest.raises(GuestLookError) as two_disks:
        find_disk([disk(), disk(device="/dev/vdc")], VOLUME, [VOLUME])
    assert {two_volumes.value.reason, two_disks.value.reason} == {Reason.FS_SERIAL_AMBIGUOUS}


def test_the_whole_id_tells_two_such_volumes_apart() -> None:
    twin = VOLUME[:24] + str(uuid.uuid4())[24:]
    assert find_disk([disk(VOLUME), disk(twin, "/dev/vdc")], VOLUME, [VOLUME, twin]).device == "/dev/vdb"


def test_layers_are_followed_to_the_file_system_and_loops_end() -> None:
    loop = GuestDisk(device="/dev/dm-0", partition=False, beneath=("/dev/vdb1", "/dev/dm-0"))
    tree = tree_of(disk(), [disk(), partition(), loop], [mounted("/dev/dm-0"), mounted("/dev/vdc1")])
    assert tree.layout is FsLayout.MAPPED
    assert [each.device for each in tree.file_systems] == ["/dev/dm-0"]


@pytest.mark.parametrize(
    ("disks", "mounts", "layout", "follow", "reason"),
    [
        ([disk(), partition()], [mounted()], FsLayout.PARTITION, Follow.YES, Reason.FS_CAN_FOLLOW),
        ([disk()], [mounted("/dev/vdb")], FsLayout.DISK, Follow.YES, Reason.FS_CAN_FOLLOW),
        ([disk(), partition()], [], FsLayout.NONE, Follow.NO, Reason.FS_NOT_MOUNTED),
        ([disk(), partition()], [mounted(kind="vfat")], FsLayout.PARTITION, Follow.NO, Reason.FS_TYPE),
        (
            [disk(), partition(), partition(2)],
            [mounted()],
            FsLayout.SEVERAL,
            Follow.UNKNOWN,
            Reason.FS_SEVERAL_PARTITIONS,
        ),
    ],
)
def test_the_agents_own_answers_say_whether_a_file_system_can_follow(
    disks: list[GuestDisk], mounts: list[GuestFileSystem], layout: FsLayout, follow: Follow, reason: Reason
) -> None:
    seen = judge_volume(GuestView(tuple(disks), tuple(mounts)), KEY, [VOLUME], 2000 * MIB)
    assert (seen.layout, seen.follow, seen.reason) == (layout, follow, reason.value)


def test_what_leaves_more_unused_than_its_type_needs_is_behind() -> None:
    shown = GuestView((disk(), partition()), (mounted(total=438),))
    assert judge_volume(shown, KEY, [VOLUME], 512 * MIB).state is FsState.FITS
    behind = judge_volume(shown, KEY, [VOLUME], 768 * MIB)
    assert (behind.state, behind.unused) == (FsState.BEHIND, 330 * MIB)


def test_a_small_part_that_did_not_follow_is_seen_by_the_look_before() -> None:
    large = GuestView((disk(), partition()), (mounted(total=95_000),))
    fits = judge_volume(large, KEY, [VOLUME], 100_000 * MIB)
    assert fits.state is FsState.FITS
    later = judge_volume(large, KEY, [VOLUME], 105_000 * MIB, reference(None, fits))
    assert later.state is FsState.BEHIND
    assert reference(fits, later) == fits
    followed = GuestView((disk(), partition()), (mounted(total=99_700),))
    assert judge_volume(followed, KEY, [VOLUME], 105_000 * MIB, fits).state is FsState.FITS


def test_a_bind_mount_and_a_subvolume_count_once() -> None:
    shown = GuestView((disk(), partition()), (mounted(), mounted(point="/also")))
    assert judge_volume(shown, KEY, [VOLUME], 768 * MIB).size == 669 * MIB


def test_a_guest_without_the_disk_is_not_judged() -> None:
    seen = judge_volume(GuestView((disk("something"),), ()), KEY, [VOLUME], 768 * MIB)
    assert (seen.state, seen.reason, seen.disk) == (FsState.UNKNOWN, "fs_disk_not_found", 768 * MIB)


def test_the_log_of_a_small_xfs_is_not_room_left_unused() -> None:
    small = GuestView((disk(), partition()), (mounted(total=446, kind="xfs"),))
    assert judge_volume(small, KEY, [VOLUME], 512 * MIB).state is FsState.FITS
    assert judge_volume(small, KEY, [VOLUME], 768 * MIB).state is FsState.BEHIND
