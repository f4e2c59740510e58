# SPDX-License-Identifier: Apache-2.0
"""Chroots of Debian 13: one with what builds packages, one as bare as debootstrap makes it."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.conftest import missing
from tests.functional.conftest import rabbit, vhost  # noqa: F401 - fixtures
from tests.lab import matrix
from tests.lab.chroot import copy_of, make_chroot
from tests.lab.paths import lab_cache

BUILDS = "python3,python3-venv,python3-dev,ca-certificates,dpkg-dev,gcc,libc6-dev,pkg-config,libvirt-dev"
SUITE = "trixie"


def _cached(name: str, include: str) -> Path:
    """Return a chroot that is kept between runs."""
    if os.geteuid() != 0:
        missing("root")
    if shutil.which("mmdebstrap") is None:
        missing("mmdebstrap")
    root = lab_cache() / "packages" / name
    if not (root / "usr/bin/dpkg").exists():
        make_chroot(SUITE, root, include=include)
    return root


@pytest.fixture(scope="session")
def builder() -> Path:
    """A chroot with this working tree in /root/extend-bridge."""
    root = _cached("builder", BUILDS)
    matrix.put_tree(root)
    return root


@pytest.fixture(scope="session")
def image_base() -> Path:
    """A chroot that images are made from; it trusts the certificates that this machine trusts."""
    return _cached("image", "python3,python3-venv,ca-certificates")


@pytest.fixture
def bare(bare_root: Callable[[], Path]) -> Callable[[], Path]:
    """Make copies of a bare chroot; they go with the tests of the file."""
    return bare_root


@pytest.fixture(scope="module")
def bare_root() -> Iterator[Callable[[], Path]]:
    """Make copies of a bare chroot, which go with the tests of the file."""
    root = _cached("bare", "ca-certificates")
    with TemporaryDirectory(prefix="eb-bare-", dir=lab_cache()) as directory:
        numbers = iter(range(100))
        yield lambda: copy_of(root, Path(directory) / f"root-{next(numbers)}")
