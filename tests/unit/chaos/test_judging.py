# SPDX-License-Identifier: Apache-2.0
"""What tools/chaos calls lost, shrunk and stuck, and what a seed decides."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.ledger import Disk, DiskId, Ledger
from tests.chaos.load import load
from tests.chaos.options import Options, options
from tests.chaos.plan import Kind, plan
from tests.chaos.verdict import Seen, Summary, judge

DISK: DiskId = ("server", "volume")


def seen(size: int = 2, *, largest: int | None = None, shrunk: int = 0) -> Seen:
    """One disk whose volume has 2."""
    return Seen(
        wanted={DISK: 2},
        disks={DISK: Disk(size=size, largest=largest or size, shrunk=shrunk)},
        told=frozenset({DISK}),
        open=frozenset(),
        waiting=0,
        to_lanes=0,
        in_lanes=0,
    )


def test_a_disk_as_large_as_its_volume_is_clean() -> None:
    assert judge(seen()).clean


def test_behind_with_nothing_on_its_way_is_lost() -> None:
    verdict = judge(seen(1))
    assert (verdict.lost, verdict.stuck) == ((DISK,), ())


@pytest.mark.parametrize("held", [{"open": frozenset({DISK})}, {"waiting": 1}])
def test_behind_with_something_on_its_way_is_stuck(held: dict[str, object]) -> None:
    verdict = judge(replace(seen(1), **held))  # type: ignore[arg-type]
    assert (verdict.lost, verdict.stuck) == ((), (DISK,))


def test_an_extend_that_never_closes_is_stuck_though_its_disk_is_up() -> None:
    assert judge(replace(seen(), open=frozenset({DISK}))).stuck == (DISK,)


def test_growth_nobody_was_told_of_is_not_lost() -> None:
    assert judge(replace(seen(1), told=frozenset())).clean


def test_a_shrink_that_was_mended_is_still_one() -> None:
    assert judge(seen(2, shrunk=1)).shrunk == (DISK,)


def test_a_bad_message_in_no_lane_has_vanished() -> None:
    verdict = judge(replace(seen(), to_lanes=2, in_lanes=1))
    assert verdict.vanished == 1
    assert not verdict.clean


def test_the_last_line_is_exactly_this() -> None:
    line = str(Summary(lost=0, shrunk=0, stuck=0, parked=3, duplicates=14, recovered_in=2.5))
    assert line == "lost 0 shrunk 0 stuck 0 parked 3 duplicates 14 recovered_in 2.5 s"


def test_the_ledger_forgets_no_shrink_and_no_half_line_counts(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    writer, reader = Ledger(path), Ledger(path)
    for size in (5, 9, 7):
        writer.put(DISK, size)
    assert reader.size(DISK) == 7
    writer.put(DISK, 9)
    with path.open("a") as file:
        file.write("server volume 10")  # a writer killed in its write
    disk = reader.disks()[DISK]
    assert (disk.size, disk.largest, disk.shrunk) == (9, 9, 1)


def chosen(*arguments: str) -> Options:
    return options(arguments)


def test_the_same_seed_makes_the_same_plan_and_load() -> None:
    one, same, other = (chosen("--kills", "30", "--seed", seed) for seed in ("7", "7", "8"))
    assert (plan(one), load(one)) == (plan(same), load(same))
    assert plan(one) != plan(other)
    assert load(one).growths != load(other).growths


@pytest.mark.parametrize("kills", [8, 60])
def test_every_part_has_its_faults(kills: int) -> None:
    faults = plan(chosen("--kills", str(kills), "--db", "mariadb", "--cluster", "3"))
    assert len(faults) == kills
    hit = {fault.part.rpartition("-")[0] or fault.part for fault in faults}
    assert {"listener", "api", "engine", "hostagent"} <= hit
    if kills == 60:
        assert {"broker", "database"} <= hit
        assert {fault.kind for fault in faults} == set(Kind)


def test_the_load_is_as_many_extends_as_asked_for_and_sizes_only_grow() -> None:
    growths = load(chosen("--events", "300")).growths
    assert len(growths) == 300
    size: dict[str, int] = {}
    for growth in growths:
        assert growth.size > size.get(growth.volume.id, growth.volume.size)
        size[growth.volume.id] = growth.size


@pytest.mark.parametrize("wrong", [["--events", "0"], ["--kills", "-1"], ["--cluster", "2"], ["--break", "all"]])
def test_a_wrong_command_line_is_refused_in_words(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        options(wrong)
    assert ended.value.code == 2
    assert wrong[0] in capsys.readouterr().err
