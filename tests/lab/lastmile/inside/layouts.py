# SPDX-License-Identifier: Apache-2.0
"""Disk layouts: how each is made, where it is mounted, and what must become of it when its disk grows."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.lab.storage_vm.inside.commands import sh
from tests.lab.waiting import until

KEY: Final = b"secret"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskLayout:
    """A layout by name. `grows`: its file system can follow; else `words` stand in the refusal."""

    name: str
    make: Callable[[str, Path], None]
    grows: bool = True
    words: str = ""
    first: str = "512M"
    then: str = "768M"
    config: str = ""
    steps: tuple[str, ...] = ()  # the tools that do the work, in their order


def partitioned(disk: str, table: str, *lines: str) -> str:
    """Write a partition table and return the first partition's device."""
    sh("sfdisk", "-q", "--wipe", "always", disk, data=("\n".join([f"label: {table}", *lines]) + "\n").encode())
    sh("udevadm", "settle", check=False)  # a udevd that starts only now breaks the pipe
    until(Path(f"{disk}p1").exists, f"{disk}p1")
    return f"{disk}p1"


def formatted(device: str, kind: str, point: Path | None, *options: str) -> None:
    """Make a file system and mount it."""
    sh(f"mkfs.{kind}", "-q", "-F" if kind == "ext4" else "-f", device)
    if point is not None:
        sh("mount", *options, device, point)


def _table(kind: str, table: str) -> Callable[[str, Path], None]:
    return lambda disk, point: formatted(partitioned(disk, table, ",,L"), kind, point)


def _lvm(disk: str, point: Path) -> None:
    _volume_group(disk, point)


def _lvm_on_partition(disk: str, point: Path) -> None:
    _volume_group(partitioned(disk, "gpt", ",,L"), point)


def _volume_group(device: str, point: Path, *, parts: int = 1) -> None:
    group = f"vg{Path(device).name}"
    sh("pvcreate", "-qq", "-y", device)
    sh("vgcreate", "-qq", group, device)
    for number in range(parts):
        share = f"{100 // parts}%VG" if number + 1 < parts else "100%FREE"
        sh("lvcreate", "-qq", "-y", "-Wn", "-l", share, "-n", f"data{number}", group)
    formatted(f"/dev/mapper/{group}-data0", "ext4", point)


def _luks(disk: str, point: Path) -> None:
    name = f"crypt-{Path(disk).name}"
    quick = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
    sh("cryptsetup", "-q", "luksFormat", *quick, disk, "-", data=KEY)
    sh("cryptsetup", "open", "--key-file", "-", disk, name, data=KEY)
    formatted(f"/dev/mapper/{name}", "ext4", point)


def _swap_last(disk: str, point: Path) -> None:
    formatted(partitioned(disk, "gpt", ",400M,L", ",,S"), "ext4", point)
    sh("mkswap", "-q", f"{disk}p2")
    sh("swapon", f"{disk}p2")


def _minix(device: str, point: Path) -> None:
    sh("modprobe", "minix")
    sh("mkfs.minix", device)
    sh("mount", device, point)


def _logical(disk: str, point: Path) -> None:
    partitioned(disk, "dos", ",,E", ",,L")
    formatted(f"{disk}p5", "ext4", point)


LAYOUTS: Final = (
    DiskLayout(
        name="gpt_ext4",
        make=_table("ext4", "gpt"),
        steps=(
            "growpart",
            "resize2fs",
        ),
    ),
    DiskLayout(
        name="gpt_xfs",
        make=_table("xfs", "gpt"),
        steps=(
            "growpart",
            "xfs_growfs",
        ),
    ),
    DiskLayout(name="gpt_btrfs", make=_table("btrfs", "gpt"), steps=("growpart",)),
    DiskLayout(
        name="mbr_ext4",
        make=_table("ext4", "dos"),
        steps=(
            "growpart",
            "resize2fs",
        ),
    ),
    DiskLayout(name="disk_ext4", make=lambda disk, point: formatted(disk, "ext4", point), steps=("resize2fs",)),
    DiskLayout(name="disk_xfs", make=lambda disk, point: formatted(disk, "xfs", point), steps=("xfs_growfs",)),
    DiskLayout(name="disk_btrfs", make=lambda disk, point: formatted(disk, "btrfs", point)),
    DiskLayout(name="lvm_on_disk", make=_lvm, steps=("pvresize", "lvextend", "resize2fs")),
    DiskLayout(
        name="lvm_on_partition",
        make=_lvm_on_partition,
        steps=("growpart", "pvresize", "lvextend", "resize2fs"),
    ),
    DiskLayout(
        name="two_logical_volumes",
        make=lambda disk, point: _volume_group(partitioned(disk, "gpt", ",,L"), point, parts=2),
        grows=False,
        words="logical volumes",
    ),
    DiskLayout(name="luks", make=_luks, grows=False, words="LUKS"),
    DiskLayout(name="swap_last", make=_swap_last, grows=False, words="swap"),
    DiskLayout(
        name="read_only",
        make=lambda disk, point: formatted(partitioned(disk, "gpt", ",,L"), "ext4", point, "-o", "ro"),
        grows=False,
        words="read-only",
    ),
    DiskLayout(
        name="not_mounted",
        make=lambda disk, _point: formatted(partitioned(disk, "gpt", ",,L"), "ext4", None),
        grows=False,
        words="not mounted",
    ),
    DiskLayout(
        name="unknown_type",
        make=lambda disk, point: _minix(partitioned(disk, "gpt", ",,L"), point),
        grows=False,
        words="file system",
    ),
    DiskLayout(
        name="logical_partition",
        make=_logical,
        grows=False,
        words="extended",
    ),
    DiskLayout(
        name="beyond_the_mbr",
        make=_table("ext4", "dos"),
        grows=False,
        words="2 TiB",
        then="3T",
    ),
    DiskLayout(
        name="excluded",
        make=_table("ext4", "gpt"),
        grows=False,
        words="excluded",
        config='EXCLUDE="loop*"',
    ),
)
