# SPDX-License-Identifier: Apache-2.0
"""Layouts of volumes in the Debian guest: how each is made and mounted there, and what must become of it."""

from dataclasses import dataclass
from typing import Final

MIB: Final = 1 << 20
FIRST_MIB: Final = 512
STEP_MIB: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestLayout:
    """A layout by name. `$D`: its disk, `$P`: its last partition, `$M`: where it is mounted, `$N`: its name.

    `reason`: of the refusal, where it cannot follow. `check`: finds faults of the file system, read-only, after an
    unmount. `cuts`: commands of its growth. `still`: places of the disk, (offset, length), that only a growth
    writes; an offset below 0 counts from the end.
    """

    name: str
    bus: str
    make: str
    mount: str
    reason: str = ""
    check: str = ""
    device: str = "$P"
    cuts: int = 0
    short: bool = False
    still: tuple[tuple[int, int], ...] = ()

    @property
    def grows(self) -> bool:
        """Whether its file system can follow."""
        return not self.reason


_GPT: Final = "printf 'label: gpt\\n,,L\\n' | sfdisk -q --wipe always $D; udevadm settle; P=${D}1; "
_MBR: Final = _GPT.replace("label: gpt", "label: dos")
_MBR_TABLE: Final = ((0, 512),)
_GPT_TABLE: Final = ((0, 34 * 512), (-33 * 512, 33 * 512))
_PHYSICAL: Final = (0, MIB)  # LVM's labels and metadata, at the beginning of its device
_IN_PARTITION: Final = (MIB, MIB)
_LUKS_HEADER: Final = ((0, 16 * MIB),)
_WHOLE: Final = ((0, 1 << 40),)
_EXT: Final = "e2fsck -fn"
_XFS: Final = "xfs_repair -n"
_BTRFS: Final = "btrfs check"
_QUICK: Final = "--pbkdf pbkdf2 --pbkdf-force-iterations 1000"
_VG: Final = "pvcreate -qq -y {0}; vgcreate -qq vg$N {0}; lvcreate -qq -y -Wn -l {1} -n data vg$N; "
_LV: Final = "vgchange -qq -ay vg$N; mount /dev/vg$N/data $M"
ROOT: Final = "root"

LAYOUTS: Final = (
    GuestLayout(
        name="gpt_ext4", bus="virtio", make=_GPT + "mkfs.ext4 -q -F $P", mount="mount $P $M", check=_EXT, cuts=2,
        short=True, still=_GPT_TABLE,
    ),
    GuestLayout(
        name="gpt_xfs", bus="scsi", make=_GPT + "mkfs.xfs -q -f $P", mount="mount $P $M", check=_XFS, cuts=2,
        short=True, still=_GPT_TABLE,
    ),
    GuestLayout(
        name="disk_btrfs", bus="virtio", make="mkfs.btrfs -q -f $D", mount="mount $D $M", check=_BTRFS, device="$D",
        cuts=1, short=True,
    ),
    GuestLayout(
        name="disk_ext4", bus="scsi", make="mkfs.ext4 -q -F $D", mount="mount $D $M", check=_EXT, device="$D",
        cuts=1,
    ),
    GuestLayout(
        name="mbr_ext4", bus="virtio", make=_MBR + "mkfs.ext4 -q -F $P", mount="mount $P $M", check=_EXT, cuts=2,
        still=_MBR_TABLE,
    ),
    GuestLayout(
        name="lvm_on_disk", bus="scsi", make=_VG.format("$D", "100%FREE") + "mkfs.ext4 -q -F /dev/vg$N/data",
        mount=_LV, check=_EXT, device="/dev/vg$N/data", cuts=3, still=(_PHYSICAL,),
    ),
    GuestLayout(
        name="lvm_on_partition", bus="virtio",
        make=_GPT + _VG.format("$P", "100%FREE") + "mkfs.xfs -q -f /dev/vg$N/data",
        mount=_LV, check=_XFS, device="/dev/vg$N/data", cuts=4, short=True,
        still=(*_GPT_TABLE, _IN_PARTITION),
    ),
    GuestLayout(
        name="two_volumes", bus="scsi",
        make=_VG.format("$D", "50%VG")
        + "lvcreate -qq -y -Wn -l 100%FREE -n more vg$N; mkfs.ext4 -q -F /dev/vg$N/data",
        mount=_LV, reason="fs_several_volumes", check=_EXT, device="/dev/vg$N/data", still=(_PHYSICAL,),
    ),
    GuestLayout(
        name="luks", bus="virtio",
        make=f"printf secret | cryptsetup -q luksFormat {_QUICK} $D -; "
        "printf secret | cryptsetup open --key-file - $D c$N; mkfs.ext4 -q -F /dev/mapper/c$N",
        mount="[ -e /dev/mapper/c$N ] || printf secret | cryptsetup open --key-file - $D c$N; "
        "mount /dev/mapper/c$N $M",
        reason="fs_luks", check=_EXT, device="/dev/mapper/c$N", short=True, still=_LUKS_HEADER,
    ),
    GuestLayout(
        name="swap_last", bus="scsi",
        make="printf 'label: gpt\\n,400M,L\\n,,S\\n' | sfdisk -q --wipe always $D; udevadm settle; P=${D}1; "
        "mkfs.ext4 -q -F $P; mkswap -q ${D}2",
        mount="mount ${D}1 $M; swapon ${D}2", reason="fs_not_last", check=_EXT, device="${D}1", short=True,
        still=_GPT_TABLE,
    ),
    GuestLayout(
        name="read_only", bus="virtio", make=_GPT + "mkfs.ext4 -q -F $P", mount="mount -o ro $P $M",
        reason="fs_read_only", check=_EXT, short=True, still=_WHOLE,
    ),
    GuestLayout(
        name="not_mounted", bus="scsi", make=_GPT + "mkfs.ext4 -q -F $P", mount="true", reason="fs_not_mounted",
        check=_EXT, still=_WHOLE,
    ),
    GuestLayout(
        name="ext4_errors", bus="virtio",
        make=_GPT + "mkfs.ext4 -q -F $P; debugfs -w -R 'set_super_value state 3' $P",
        mount="mount $P $M", reason="fs_errors", check=_EXT, still=_GPT_TABLE,
    ),
    GuestLayout(name=ROOT, bus="virtio", make="true", mount="true", short=True, cuts=2, still=_GPT_TABLE),
)  # fmt: skip
"""The root disk is made with the guest and is checked from outside."""
