# SPDX-License-Identifier: Apache-2.0
"""A Debian guest from apt alone: systemd, its stock kernel, the guest agent, the helper; kept in the cache."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.lab.paths import ROOT, lab_cache
from tests.lab.storage_vm.kernel import Kernel, modules_in_order

_SUITE: Final = "bookworm"
_PACKAGES: Final = (
    "systemd", "systemd-sysv", "udev", "linux-image-cloud-amd64", "qemu-guest-agent", "cloud-guest-utils",
    "e2fsprogs", "xfsprogs", "btrfs-progs", "lvm2", "cryptsetup-bin", "fdisk", "kmod", "util-linux", "mount",
)  # fmt: skip
_LEFT_OUT: Final = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
_MASKED: Final = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer",
    "dpkg-db-backup.timer", "systemd-timesyncd.service", "getty@.service", "serial-getty@.service",
    "systemd-logind.service", "systemd-update-utmp.service", "systemd-random-seed.service", "lvm2-monitor.service",
)  # fmt: skip
"""Units that only cost time at boot."""
_MODULES: Final = ("virtio_pci", "virtio_blk", "ext4")
_INIT: Final = Path(__file__).with_name("init.sh")
_BUSYBOX: Final = Path("/bin/busybox")
ROOT_MIB: Final = 1100
ROOT_OFFSET: Final = 1 << 20  # bytes before its file system
_TABLE: Final = "label: gpt\nstart=2048\n"
RULE: Final = "/etc/udev/rules.d/90-extend-bridge-grow.rules"
"""A link to nothing here switches the helper off."""
_TOOLS: Final = ("qemu-system-x86_64", "mmdebstrap", "busybox", "cpio", "mke2fs", "sfdisk", "dpkg-deb")


def lacking() -> str | None:
    """What this machine lacks to make and run the guest, None where it has all."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    tools = [tool for tool in _TOOLS if shutil.which(tool, path=path) is None]
    if tools:
        return ", ".join(tools)
    return None if os.geteuid() == 0 else "root, as which mmdebstrap makes the guest"


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestImage:
    """The parts that QEMU boots."""

    kernel: Path
    initramfs: Path
    disk: Path


def guest_image() -> GuestImage:
    """The image, made once for each list of packages and each state of the helper."""
    helper = "".join(path.read_text() for path in sorted((ROOT / "etc" / "guest").iterdir()))
    made_from = f"{_PACKAGES}{_MASKED}{_INIT.read_text()}{helper}"
    directory = lab_cache() / "lastmile"
    kept = directory / f"guest-{hashlib.sha256(made_from.encode()).hexdigest()[:16]}"
    if not kept.is_dir():
        root = _root(directory)
        with tempfile.TemporaryDirectory(dir=directory) as text:
            part = Path(text) / "part"
            part.mkdir()
            _make(root, part)
            part.rename(kept)
    return GuestImage(kernel=kept / "vmlinuz", initramfs=kept / "initramfs", disk=kept / "root.img")


def _root(directory: Path) -> Path:
    """The guest's files, from apt; kept apart because the helper changes more often than the packages."""
    root = directory / f"root-{hashlib.sha256(repr(_PACKAGES).encode()).hexdigest()[:16]}"
    if not root.is_dir():
        directory.mkdir(parents=True, exist_ok=True)
        part = root.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        command = [
            "mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--components=main", "--format=directory",
            "--keyring=/usr/share/keyrings", '--aptopt=Acquire::Languages "none"',
            '--aptopt=Acquire::Check-Valid-Until "false"', *(f"--dpkgopt=path-exclude={x}" for x in _LEFT_OUT),
            f"--include={','.join(_PACKAGES)}", _SUITE, str(part),
        ]  # fmt: skip
        subprocess.run(command, check=True)
        part.rename(root)
    return root


def _make(root: Path, directory: Path) -> None:
    (root / "etc" / "fstab").write_text("/dev/vda1 / ext4 defaults 0 1\n")
    (root / "etc" / "hostname").write_text("guest\n")
    for unit in _MASKED:
        link = root / "etc" / "systemd" / "system" / unit
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")
    _install_helper(root, directory)
    shutil.copy(next((root / "boot").glob("vmlinuz-*")), directory / "vmlinuz")
    _initramfs(root, directory)
    disk = directory / "root.img"
    with disk.open("wb") as out:
        out.truncate(ROOT_MIB << 20)
    blocks = ROOT_MIB * 1024 - 2048  # KiB: the partition begins and ends a MiB inside
    made = ("mke2fs", "-q", "-t", "ext4", "-d", root, "-E", f"offset={ROOT_OFFSET}", "-F", disk, f"{blocks}k")
    subprocess.run(made, check=True)
    subprocess.run(("sfdisk", "-q", disk), input=_TABLE.encode(), check=True)


def _install_helper(root: Path, directory: Path) -> None:
    built = subprocess.run(
        (ROOT / "etc" / "guest" / "build-deb", directory), check=True, capture_output=True, text=True
    )
    package = Path(built.stdout.strip())
    subprocess.run(("dpkg-deb", "-x", package, root), check=True)
    package.unlink()
    rule = root / RULE.removeprefix("/")
    rule.unlink(missing_ok=True)
    rule.symlink_to("/dev/null")


def _initramfs(root: Path, directory: Path) -> None:
    modules = next((root / "lib" / "modules").iterdir())
    tree = directory / "tree"
    for name in ("bin", "mod"):
        (tree / name).mkdir(parents=True)
    shutil.copy(_BUSYBOX, tree / "bin" / "busybox")
    shutil.copy(_INIT, tree / "init")
    (tree / "init").chmod(0o755)
    kernel = Kernel(image=directory / "vmlinuz", modules=modules)
    for number, module in enumerate(modules_in_order(kernel, _MODULES)):
        shutil.copy(modules / module, tree / "mod" / f"{number:02}-{Path(module).name}")
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    with (directory / "initramfs").open("wb") as out:
        subprocess.run(
            ("cpio", "--quiet", "-o", "-H", "newc"), input=names.encode(), stdout=out, cwd=tree, check=True
        )
    shutil.rmtree(tree)
