# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.lab.lastmile.inside PORT FORM`: each layout on a loop device that grows, and the helper on it.

Each case: a dry run, a run, a second run.
"""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.lab.lastmile.inside.layouts import LAYOUTS, DiskLayout
from tests.lab.paths import ROOT
from tests.lab.storage_vm.inside.commands import sh
from tests.lab.storage_vm.inside.results import Results, say

HELPER: Final = ROOT / "etc" / "guest" / "extend-bridge-grow"
STATE: Final = Path("/run/lastmile")


def main(port: str, _form: str = "long") -> None:
    """Run all layouts, and each that grows cut off at each step."""
    STATE.mkdir()
    sh("modprobe", "-a", "loop", "dm_mod", "dm_crypt", "ext4", "xfs", "btrfs", check=False)
    results = Results(Path(port))
    for layout in LAYOUTS:
        results.run(layout.name, partial(_grow, layout, layout.name))
    for layout in LAYOUTS:
        for step in layout.steps:
            name = f"{layout.name}_cut_at_{step}"
            results.run(name, partial(_grow, layout, name, cut_at=step))
    say("done")


def _grow(layout: DiskLayout, name: str, cut_at: str | None = None) -> dict[str, Any]:
    """One layout on a disk of its own, from its making to the second run. `cut_at`: a tool that dies first."""
    image, point, config = STATE / f"{name}.raw", STATE / name, STATE / f"{name}.conf"
    point.mkdir()
    sh("truncate", "-s", layout.first, image)
    disk = sh("losetup", "-fP", "--show", image)
    layout.make(disk, point)
    config.write_text(layout.config)
    before, table = _statfs(point), _table(disk)
    sh("truncate", "-s", layout.then, image)
    sh("losetup", "-c", disk)
    seen: dict[str, Any] = {"before": before}
    if cut_at is None:
        seen["dry"] = _helper(disk, config, "--dry-run")
        seen["dry_touched"] = table != _table(disk) or before != _statfs(point)
    else:
        seen["cut"] = _helper(disk, config, without=cut_at)
    seen["run"] = _helper(disk, config)
    seen["after"], seen["touched"] = _statfs(point), table != _table(disk)
    seen["again"] = _helper(disk, config)
    seen["after_again"] = _statfs(point)
    seen["clean"] = _clean(disk, point, name)
    return seen


def _helper(disk: str, config: Path, *options: str, without: str | None = None) -> dict[str, Any]:
    """Run the helper; `without`: the named tool is killed by its first signal, as in a power cut."""
    environment = dict(os.environ, EXTEND_BRIDGE_GROW_CONFIG=str(config))
    command = ["sh", str(HELPER), *options, disk]
    if without is not None:
        broken = STATE / "broken"
        broken.mkdir(exist_ok=True)
        for old in broken.iterdir():
            old.unlink()
        (broken / without).write_text("#!/bin/sh\nkill -9 $PPID\n")
        (broken / without).chmod(0o755)
        script = HELPER.read_text().replace("PATH=/usr/sbin", f"PATH={broken}:/usr/sbin", 1)
        (STATE / "helper").write_text(script)
        command[1] = str(STATE / "helper")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return {"code": done.returncode, "words": done.stdout + done.stderr}


def _statfs(point: Path) -> int:
    status = os.statvfs(point)
    return status.f_blocks * status.f_frsize


def _table(disk: str) -> list[str]:
    """Return the partitions' lines; the header's last sector follows the disk and is not a change of ours."""
    return [line for line in sh("sfdisk", "--dump", disk, check=False).splitlines() if line.startswith("/dev/")]


def _clean(disk: str, point: Path, name: str) -> str:
    """Unmount and check the file system; the checker's words where it is not clean."""
    source = sh("findmnt", "-n", "-o", "SOURCE,FSTYPE", point, check=False).split()
    sh("swapoff", f"{disk}p2", check=False)
    if len(source) < 2:
        return ""
    device, kind = source[0], source[1]
    sh("umount", point)
    check = {
        "ext4": ("e2fsck", "-fn", device),
        "xfs": ("xfs_repair", "-n", device),
        "btrfs": ("btrfs", "check", device),
    }.get(kind)
    words = ""
    if check is not None:
        done = subprocess.run(check, capture_output=True, text=True, check=False)
        words = "" if done.returncode == 0 else done.stdout + done.stderr
    sh("vgchange", "-an", f"vg{Path(disk).name}", check=False)
    sh("vgchange", "-an", f"vg{Path(disk).name}p1", check=False)
    sh("cryptsetup", "close", f"crypt-{Path(disk).name}", check=False)
    sh("losetup", "-d", disk, check=False)
    (STATE / f"{name}.raw").unlink()
    return words


if __name__ == "__main__":
    main(*sys.argv[1:3])
    os._exit(0)
