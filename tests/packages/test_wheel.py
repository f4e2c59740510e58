# SPDX-License-Identifier: Apache-2.0
"""The wheel holds the samples that the README and the guide name, and the source archive holds the whole tree."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.lab.install import TREE

SAMPLES = ("systemd", "sysusers.d", "tmpfiles.d", "logrotate.d", "sudoers.d", "prometheus", "grafana", "rabbitmq")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from the files that git knows."""
    directory = tmp_path_factory.mktemp("wheel")
    source = directory / "source"
    source.mkdir()
    names = subprocess.run(["git", "-C", TREE, "ls-files"], check=True, capture_output=True, text=True).stdout
    for name in names.splitlines():
        if (TREE / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((TREE / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(directory), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (made,) = directory.glob("extend_bridge-*.whl")
    return zipfile.ZipFile(made)


def test_the_wheel_holds_every_sample(wheel: zipfile.ZipFile) -> None:
    """They are in share/extend-bridge of the virtualenv."""
    names = {name.partition(".data/data/share/extend-bridge/")[2] for name in wheel.namelist()}
    for folder in SAMPLES:
        wanted = {f"{folder}/{file.name}" for file in (TREE / "etc" / folder).iterdir()}
        assert wanted
        assert wanted <= names


def test_the_wheel_holds_the_three_packages_and_no_tests(wheel: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.startswith("extend_bridge-")} == {"bridge", "listener", "hostagent"}
    names = set(wheel.namelist())
    for package in ("bridge", "listener", "hostagent"):
        for module in Path(TREE / package).rglob("*.py"):
            assert str(module.relative_to(TREE)) in names
