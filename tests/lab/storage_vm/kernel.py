# SPDX-License-Identifier: Apache-2.0
"""Debian's kernel, unpacked from its package and never installed, and a small initramfs."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.lab.paths import lab_cache

_META: Final = "linux-image-amd64"
_MODULES: Final = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
_INIT: Final = Path(__file__).with_name("init.sh")
_BUSYBOX: Final = Path("/bin/busybox")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """`modules` is the directory that belongs at /lib/modules/RELEASE."""

    image: Path
    modules: Path


def unpacked_kernel() -> Kernel:
    """The kernel apt would install now, downloaded once and kept in the lab's cache. Raises CalledProcessError."""
    package, others = _packages()
    kept = lab_cache() / "kernel" / package
    if not kept.is_dir():
        kept.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as text:
            part = Path(text)
            part.chmod(0o755)  # apt drops its privileges and wants to write here
            root = part / "root"
            (root / "usr" / "lib").mkdir(parents=True)
            for each in (package, *others):
                _download(each, part)
            for file in part.glob("*.deb"):
                subprocess.run(["dpkg-deb", "-x", file, root], check=True)
            if not (root / "lib").exists():  # Debian 13 ships the modules in /usr/lib, and depmod looks in /lib
                (root / "lib").symlink_to("usr/lib")
            subprocess.run(["depmod", "-b", root, next((root / "lib" / "modules").iterdir()).name], check=True)
            root.rename(kept)
    modules = next((kept / "lib" / "modules").iterdir())
    images = (kept / "boot" / f"vmlinuz-{modules.name}", modules / "vmlinuz")
    return Kernel(image=next(filter(Path.exists, images)), modules=modules)


def initramfs(kernel: Kernel, directory: Path) -> Path:
    """Return an initramfs that reaches this machine's root; made anew each time, which takes a second."""
    archive = directory / "initramfs.cpio"
    archive.write_bytes(packed(kernel, directory / "initramfs", init=_INIT, modules=_MODULES))
    return archive


def packed(kernel: Kernel, root: Path, *, init: Path, modules: Sequence[str]) -> bytes:
    """Return a cpio archive of busybox, `init` and the modules, laid out in `root`."""
    (root / "bin").mkdir(parents=True)
    (root / "mod").mkdir()
    shutil.copy(_BUSYBOX, root / "bin" / "busybox")
    shutil.copy(init, root / "init")
    (root / "init").chmod(0o755)
    for number, module in enumerate(modules_in_order(kernel, modules)):
        shutil.copy(kernel.modules / module, root / "mod" / f"{number:03}-{Path(module).name}")
    names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    return subprocess.run(
        ["cpio", "--quiet", "-o", "-H", "newc"], input=names.encode(), capture_output=True, cwd=root, check=True
    ).stdout


def _download(package: str, directory: Path) -> None:
    """apt-get download; once more with fresh lists where the old ones name a version that is gone."""
    command = ["apt-get", "download", "-q", package]
    if subprocess.run(command, cwd=directory, check=False, capture_output=True).returncode != 0:
        subprocess.run(["apt-get", "update", "-q"], check=True, capture_output=True)
        subprocess.run(command, cwd=directory, check=True, capture_output=True)


def _packages() -> tuple[str, list[str]]:
    """Return the kernel's package, and those with its image and modules in the releases that split them off."""
    found = re.search(r"Depends: (linux-image-(\S+))", _depends(_META))
    if found is None:
        raise RuntimeError(f"apt knows no package {_META}; run apt-get update")
    package, release = found[1], re.escape(found[2])
    return package, re.findall(rf"Depends: (linux-(?:binary|modules)-{release})$", _depends(package), re.MULTILINE)


def _depends(package: str) -> str:
    return subprocess.run(["apt-cache", "depends", package], check=True, capture_output=True, text=True).stdout


def modules_in_order(kernel: Kernel, modules: Sequence[str]) -> list[str]:
    """Return the files of those of these modules that the kernel has, each after the ones it depends on."""
    lines = (kernel.modules / "modules.dep").read_text().splitlines()
    needs = {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}
    path_of = {Path(name).name.partition(".")[0].replace("-", "_"): name for name in needs}
    ordered: dict[str, None] = {}
    for path in (path_of[module] for module in modules if module in path_of):
        ordered.update(dict.fromkeys([*reversed(needs[path]), path]))
    return list(ordered)
