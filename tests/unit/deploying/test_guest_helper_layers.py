# SPDX-License-Identifier: Apache-2.0
"""The helper for guests (etc/guest) on a played disk: /sys is a directory, the tools are played and leave a log."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.lab.paths import ROOT

HELPER: Final = ROOT / "etc" / "guest" / "extend-bridge-grow"
TOOLS: Final = ("pvs", "vgs", "lvs", "sfdisk", "dumpe2fs", "growpart", "pvresize", "lvextend", "resize2fs")
PLAYED: Final = r"""
import sys
from pathlib import Path

state, tool, words = Path(sys.argv[0]).parents[1], Path(sys.argv[0]).name, sys.argv[1:]
MIB = 1 << 20


def number(file):
    return int((state / file).read_text())


def put(file, value):
    (state / file).write_text(f"{value}\n")


disk, part, lv = (number(f"sys/{name}/size") // 2048 for name in ("vdz", "vdz1", "dm-9"))
pv, covered = number("pv"), number("covered")
if tool in ("growpart", "pvresize", "lvextend", "resize2fs"):
    with (state / "log").open("a") as log:
        log.write(f"{tool}\n")
shown = words[words.index("-o") + 1] if "-o" in words else ""
match tool, shown:
    case "pvs", "vg_name":
        print("  vg")
    case "pvs", "pe_start,pv_size":
        print(f"  {MIB} {pv * MIB}")
    case "vgs", "lv_count":
        print("  1")
    case "vgs", "vg_extent_size":
        print(f"  {4 * MIB}")
    case "vgs", "vg_free_count":
        print(f"  {(pv - lv) // 4}")
    case "lvs", "lv_layout":
        print("  linear")
    case "lvs", "lv_name":
        print("  data")
    case "sfdisk", _:
        print("label: gpt")
    case "dumpe2fs", _:
        print((state / "header").read_text())
        print(f"Block count:              {covered * 256}\nBlock size:               4096")
    case "growpart", _:
        for file in ("sys/vdz1/size", "sys/vdz/vdz1/size"):
            put(file, (disk - 1) * 2048)
    case "pvresize", _:
        put("pv", (part - 2) // 4 * 4)
    case "lvextend", _:
        put("sys/dm-9/size", pv * 2048)
    case "resize2fs", _:
        put("covered", lv)
"""


class PlayedDisk:
    """A disk of 768 MiB with one partition, LVM on it and an ext4; the sizes below are what has followed so far."""

    def __init__(self, state: Path, *, part: int = 511, pv: int = 508, header: str = "") -> None:
        self._state = state
        for file, value in {
            "sys/vdz/size": 768 * 2048,
            "sys/vdz/ro": 0,
            "sys/vdz/serial": "0af3c9e2-7d51-4a0e-9",
            "sys/vdz/vdz1/partition": 1,
            "sys/vdz/vdz1/start": 2048,
            "sys/vdz/vdz1/size": part * 2048,
            "sys/vdz1/partition": 1,
            "sys/vdz1/start": 2048,
            "sys/vdz1/size": part * 2048,
            "sys/vdz1/dev": "252:81",
            "sys/vdz1/holders/dm-9/dev": "253:9",
            "sys/dm-9/dm/uuid": "LVM-abc",
            "sys/dm-9/size": 508 * 2048,
            "sys/dm-9/dev": "253:9",
            "mounts": "36 1 253:9 / /data rw,relatime shared:1 - ext4 /dev/mapper/vg-data rw",
            "pv": pv,
            "covered": 508,
            "log": "",
            "header": header or "Filesystem features:      has_journal 64bit\nFilesystem state:         clean",
        }.items():
            (state / file).parent.mkdir(parents=True, exist_ok=True)
            (state / file).write_text(f"{value}\n")
        (state / "bin").mkdir()
        for tool in TOOLS:
            (state / "bin" / tool).write_text(f"#!{sys.executable} -IS\n{PLAYED}")
            (state / "bin" / tool).chmod(0o755)
        script = HELPER.read_text()
        for real, played in {
            "SYS=/sys/class/block": f"SYS={state}/sys",
            "PATH=/usr/sbin": f"PATH={state}/bin:/usr/sbin",
            "/proc/self/mountinfo": f"{state}/mounts",
            '"/run/extend-bridge-grow.': f'"{state}/',
            '"$(id -u)" = 0': "0 = 0",
        }.items():
            assert script.count(real) == 1, real
            script = script.replace(real, played)
        (state / "helper").write_text(script)

    def run(self, *options: str) -> tuple[int, str, list[str]]:
        """Run the helper; return its exit code, its words, and the tools that change something, in their order."""
        (self._state / "log").write_text("")
        environment = dict(os.environ, EXTEND_BRIDGE_GROW_CONFIG=str(self._state / "none"))
        done = subprocess.run(
            ("sh", self._state / "helper", *options, "vdz"), env=environment, capture_output=True, text=True,
            check=False, cwd=self._state,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr, (self._state / "log").read_text().split()


pytestmark = pytest.mark.skipif(shutil.which("flock") is None, reason="flock of util-linux")


def test_the_layers_grow_in_their_order_and_a_second_run_writes_nothing_anywhere(tmp_path: Path) -> None:
    disk = PlayedDisk(tmp_path)
    code, words, ran = disk.run("--dry-run")
    assert (code, words.count("would run"), ran) == (0, 4, [])
    code, words, ran = disk.run()
    assert (code, ran) == (0, ["growpart", "pvresize", "lvextend", "resize2fs"]), words
    for options in ([], ["--dry-run"]):
        code, words, ran = disk.run(*options)
        assert (code, ran) == (0, []), words
        assert "nothing to do" in words
        assert "would run" not in words


@pytest.mark.parametrize(
    ("part", "pv", "left"),
    [(767, 508, ["pvresize", "lvextend", "resize2fs"]), (767, 764, ["lvextend", "resize2fs"])],
)
def test_a_run_that_was_cut_off_is_completed_without_what_is_done(
    tmp_path: Path, part: int, pv: int, left: list[str]
) -> None:
    code, words, ran = PlayedDisk(tmp_path, part=part, pv=pv).run()
    assert (code, ran) == (0, left), words


@pytest.mark.parametrize("state", ["clean with errors", "not clean with errors"])
def test_an_ext4_that_is_marked_as_faulty_is_left_alone_before_its_partition_is_touched(
    tmp_path: Path, state: str
) -> None:
    header = f"Filesystem features:      64bit\nFilesystem state:         {state}"
    code, words, ran = PlayedDisk(tmp_path, header=header).run()
    assert (code, ran) == (4, []), words
    assert "e2fsck" in words
