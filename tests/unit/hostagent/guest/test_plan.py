# SPDX-License-Identifier: Apache-2.0
"""Properties of the decision to grow and of the verdict, over all the facts a guest can show."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.core.reasons import Reason
from hostagent.guest.plan import GrowFacts, GrowPlan, GrowRefusal, is_verified, plan_growth
from hostagent.guest.printed import Covered, LogicalVolume, PartitionTable, TablePartition, read_logical_volume

MIB = 1 << 20
sizes = st.integers(min_value=1, max_value=4 << 20).map(lambda mib: mib * MIB)


@st.composite
def facts(draw: st.DrawFn) -> GrowFacts:
    """Draw the facts of any guest, possible or not."""
    disk_size = draw(sizes)
    partitions = draw(
        st.lists(
            st.builds(
                TablePartition,
                device=st.sampled_from(["/dev/vdb1", "/dev/vdb2", "/dev/vdb5"]),
                number=st.sampled_from([1, 2, 5]),
                start=sizes,
                end=sizes,
            ),
            max_size=3,
        )
    )
    table = PartitionTable(kind=draw(st.sampled_from(["gpt", "dos"])), partitions=tuple(partitions))
    logical = LogicalVolume(
        group="vg",
        name="data",
        layout=draw(st.sampled_from(["linear", "linear", "striped", "thin,pool"])),
        minor=0,
        volumes=draw(st.integers(0, 3)),
        extent=draw(sizes),
        device=draw(sizes),
        used=draw(sizes),
        free=draw(sizes),
    )
    return GrowFacts(
        disk="/dev/vdb",
        disk_size=disk_size,
        table=draw(st.sampled_from([table, None])),
        base="/dev/vdb1",
        logical=draw(st.sampled_from([logical, None])),
        device="/dev/dm-0",
        room=draw(sizes),
        kind=draw(st.sampled_from(["ext4", "ext2", "xfs", "btrfs", "vfat", "swap", "crypto_LUKS"])),
        mount_point="/data; rm -rf / $(id)",
        writable=draw(st.booleans()),
        covered=Covered(size=draw(sizes), most=draw(st.none() | sizes), faulty=draw(st.booleans())),
    )


@given(facts())
def test_a_plan_ends_with_the_file_system_and_writes_the_table_before_anything_else(facts: GrowFacts) -> None:
    plan = plan_growth(facts)
    if isinstance(plan, GrowPlan) and plan.commands:
        names = [command.name for command in plan.commands]
        order = ["partition", "physical_volume", "logical_volume", "file_system"]
        assert names == [name for name in order if name in names]
        assert names[-1] == "file_system"


@given(facts())
def test_what_cannot_be_grown_has_no_commands(facts: GrowFacts) -> None:
    plan = plan_growth(facts)
    cannot = not facts.writable or facts.kind not in {"ext2", "ext4", "xfs", "btrfs"}
    cannot = cannot or (
        facts.logical is not None and (facts.logical.volumes, facts.logical.layout) != (1, "linear")
    )
    if cannot:
        assert isinstance(plan, GrowRefusal)


@given(facts())
def test_words_of_a_guest_are_single_arguments_and_never_options(facts: GrowFacts) -> None:
    plan = plan_growth(facts)
    if isinstance(plan, GrowPlan):
        for command in plan.commands:
            assert command.argv[0] in {"growpart", "pvresize", "lvextend", "resize2fs", "xfs_growfs", "btrfs"}
            assert facts.mount_point in command.argv or "rm -rf" not in " ".join(command.argv)


@given(facts())
def test_a_file_system_that_has_its_disk_is_left_alone(facts: GrowFacts) -> None:
    plan = plan_growth(facts)
    if isinstance(plan, GrowPlan) and not plan.commands:
        assert facts.room - facts.covered.size < 16 * MIB


@given(sizes, sizes, st.none() | sizes, st.none() | sizes)
def test_no_size_is_believed_that_did_not_become_larger(
    covered: int, room: int, before: int | None, after: int | None
) -> None:
    if is_verified("ext4", covered=covered, room=room, before=before, after=after):
        assert before is not None
        assert after is not None
        assert after > before
        assert room > covered


def test_most_of_the_new_room_must_be_in_the_size_read_back() -> None:
    assert is_verified("ext4", covered=512 * MIB, room=768 * MIB, before=438 * MIB, after=669 * MIB)
    assert not is_verified("ext4", covered=512 * MIB, room=768 * MIB, before=438 * MIB, after=500 * MIB)


def test_a_room_smaller_than_one_extent_is_named() -> None:
    logical = LogicalVolume(
        group="vg", name="data", layout="linear", minor=0, volumes=1, extent=128 * MIB, device=768 * MIB,
        used=700 * MIB, free=0,
    )  # fmt: skip
    facts = GrowFacts(
        disk="/dev/vdb", disk_size=768 * MIB, table=None, base="/dev/vdb", logical=logical, device="/dev/dm-0",
        room=700 * MIB, kind="xfs", mount_point="/data", writable=True, covered=Covered(size=700 * MIB),
    )  # fmt: skip
    plan = plan_growth(facts)
    assert isinstance(plan, GrowRefusal)
    assert plan.reason is Reason.FS_NO_FREE_EXTENTS


def test_the_end_of_a_physical_volume_that_holds_no_extent_is_not_room() -> None:
    """The numbers of a real pvresize: 4 MiB are left, of which a MiB is metadata."""
    pvs = (
        '{"report": [{"pv": [{"pv_name":"/dev/vdb", "vg_name":"vg", "dev_size":"805306368", '
        '"pe_start":"1048576", "pv_size":"801112064", "pv_free":"0"}]}]}'
    )
    lvs = (
        '{"report": [{"lv": [{"vg_name":"vg", "lv_name":"data", "lv_layout":"linear", "lv_kernel_minor":"0", '
        '"lv_count":"1", "vg_extent_size":"4194304"}]}]}'
    )
    logical = read_logical_volume(lvs, pvs, "/dev/vdb", 0)
    facts = GrowFacts(
        disk="/dev/vdb", disk_size=768 * MIB, table=None, base="/dev/vdb", logical=logical, device="/dev/dm-0",
        room=801112064, kind="ext4", mount_point="/data", writable=True, covered=Covered(size=801112064),
    )  # fmt: skip
    assert plan_growth(facts) == GrowPlan(commands=())
